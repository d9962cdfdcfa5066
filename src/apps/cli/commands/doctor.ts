/** `dmalink doctor`: what this machine has for real devices, what is missing, and what to type. */
import { type Command, command } from "../command.ts";
import { JSON_ANSWER } from "../options.ts";

export const doctor: Command = command({
  name: "doctor",
  summary: "what this machine has for real devices, and what is missing",
  description:
    "Looks at the kernel, the IOMMU, iommufd, VFIO, limits of memory and every PCI device, and changes nothing. For each thing " +
    "that is missing it says the cure. Exit code 3 if something is.",
  arguments: [],
  options: { json: JSON_ANSWER },
  examples: ["dmalink doctor"],
  run: async ({ options }) => (await import("../machine/doctor.ts")).doctor(options),
});
