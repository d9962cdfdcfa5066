/** `dmalink record`: what this machine maps for DMA, into a trace.dat. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { DEVICES, file, flag, JSON_ANSWER, size, time, withDefault } from "../options.ts";

/** Kibibytes a CPU; with less, the kernel has no room for two pages of events. */
const LEAST_BUFFER_KIB = 8;

export const record: Command = command({
  name: "record",
  summary: "record what this machine maps for DMA (Linux, as root)",
  description:
    "Records the events of the DMA, IOMMU and bounce-buffer subsystems and the kernel's own lines (on Intel, faults are told only " +
    "there), by trace-cmd where it is installed, else by tracefs. What it changes on the machine is put back however it ends. " +
    "Ends with the command behind --, after a time, or at Ctrl-C.",
  arguments: [],
  options: {
    for: time("how long: 10s, 500ms, 2m; without it and without a command, until Ctrl-C"),
    output: withDefault("trace.dat", file("the trace", { short: "o" })),
    device: DEVICES,
    probes: flag("also the two-step functions, which have no tracepoints (Linux 6.16 and newer)"),
    stacks: flag("each event with the kernel's stack: findings name the code that mapped (five times the data)"),
    buffer: withDefault("20M", size("memory per CPU for events not yet written")),
    printScript: flag("print a shell script that does it, for a machine without Node"),
    json: JSON_ANSWER,
  },
  runs: true,
  examples: [
    "sudo dmalink record --for 10s --probes -o trace.dat",
    "sudo dmalink record -- dd if=/dev/nvme0n1 of=/dev/null bs=1M count=100 iflag=direct",
  ],
  async run({ options, behind }) {
    const bufferKiB = Math.ceil(options.buffer / 1024);
    if (bufferKiB < LEAST_BUFFER_KIB) throw new UsageError(`--buffer: at least ${LEAST_BUFFER_KIB}K a CPU is needed`);
    return (await import("../record/record.ts")).record({
      file: options.output,
      forMs: options.for,
      devices: options.device,
      probes: options.probes,
      stacks: options.stacks,
      bufferKiB,
      command: behind,
      printScript: options.printScript,
      json: options.json,
    });
  },
});
