/** Gives a device to vfio-pci, and back to the driver that had it. */
import {
  type Binding,
  bindableFunction,
  bindCommands,
  bindToVfio,
  fullName,
  Sysfs,
  unbindFromVfio,
} from "../../../hosts/linux/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import { print, printJson } from "../terminal/print.ts";

/** How a device is given and taken. */
export interface BindOptions {
  /** Without it nothing is changed, and what would be is said. */
  readonly yes: boolean;
  readonly json?: boolean;
  readonly sysfs?: Sysfs;
}

/**
 * Gives the device `name` to vfio-pci; the exit code.
 *
 * @throws EnvironmentError: it was not done for lack of a yes, and what would be done; or it cannot be done
 */
export async function bind(name: string, options: BindOptions): Promise<number> {
  const sysfs = options.sysfs ?? new Sysfs();
  const device = fullName(name);
  if (!options.yes) {
    const pci = bindableFunction(sysfs, device);
    if (pci.driver !== "vfio-pci")
      throw new EnvironmentError(
        `${device} would be taken from ${pci.driver ?? "no driver"}: say --yes to do it. By hand:\n` +
          bindCommands(pci)
            .map((command) => `  ${command}`)
            .join("\n"),
      );
  }
  say(bindToVfio(sysfs, device), options);
  return 0;
}

/** Gives the device `name` back to the driver that had it; the exit code, and errors as of {@link bind}. */
export async function unbind(name: string, options: BindOptions): Promise<number> {
  const device = fullName(name);
  if (!options.yes)
    throw new EnvironmentError(`${device} would be taken from whoever drives it now: say --yes to do it`);
  say(unbindFromVfio(options.sysfs ?? new Sysfs(), device), options);
  return 0;
}

function say({ name, before, after }: Binding, { json }: BindOptions): void {
  if (json) printJson({ schema: "dmalink.bind/1", name, before, after });
  else print(`${name}: ${before ?? "no driver"} -> ${after ?? "no driver"}\n`);
}
