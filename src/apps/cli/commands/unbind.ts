/** `dmalink unbind`: gives a device back to the driver that had it. */
import { type Command, command } from "../command.ts";
import { flag, JSON_ANSWER, PCI_DEVICE } from "../options.ts";

export const unbind: Command = command({
  name: "unbind",
  summary: "give a device back to the driver that had it",
  description: "Takes the device from whoever drives it now, and lets the kernel find its own driver again.",
  arguments: [PCI_DEVICE],
  options: { yes: flag("do it; without it nothing is changed (exit code 3)"), json: JSON_ANSWER },
  examples: ["sudo dmalink unbind 0000:00:04.0 --yes"],
  run: async ({ arguments: [device], options }) => (await import("../machine/bind.ts")).unbind(device!, options),
});
