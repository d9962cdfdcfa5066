/**
 * Where an example runs: on a simulated machine, or with real devices (docs/real-hardware.md).
 *
 * `--host linux --device 0000:04:00.0` (once for each device) says the second; the driver's code is the same.
 */
import { parseArgs } from "node:util";
import type { Host } from "dmalink";
import { LinuxHost } from "dmalink/linux";

/** The host that the command line says, and the names of the devices on it. */
export function openPlace(
  devices: number,
  simulated: () => { host: Host; names: string[] },
): {
  host: Host;
  names: string[];
} {
  const { values } = parseArgs({
    options: { host: { type: "string", default: "simulated" }, device: { type: "string", multiple: true } },
  });
  const { host, device: names = [] } = values;
  if (host === "simulated" && names.length === 0) return simulated();
  if (host !== "linux" || names.length !== devices)
    throw new Error(`--host linux${" --device ssss:bb:dd.f".repeat(devices)}, or nothing for the simulated machine`);
  return { host: new LinuxHost(), names };
}
