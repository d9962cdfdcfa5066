/** `dmalink bind`: gives a device to vfio-pci. */
import { type Command, command } from "../command.ts";
import { flag, JSON_ANSWER, PCI_DEVICE } from "../options.ts";

export const bind: Command = command({
  name: "bind",
  summary: "give a device to vfio-pci, so that a program can drive it (Linux, as root)",
  description:
    "Takes the device from its driver, and refuses where the machine itself needs it: a mounted disk, a network in use, a " +
    "device that shares its group. dmalink unbind gives it back.",
  arguments: [PCI_DEVICE],
  options: {
    yes: flag("do it; without it nothing is changed, and the commands that would do it are printed (exit code 3)"),
    json: JSON_ANSWER,
  },
  examples: ["sudo dmalink bind 0000:00:04.0 --yes"],
  run: async ({ arguments: [device], options }) => (await import("../machine/bind.ts")).bind(device!, options),
});
