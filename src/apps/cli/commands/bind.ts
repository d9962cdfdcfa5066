/** `dmalink bind` and `dmalink unbind`: gives a device to vfio-pci, and back to the driver that had it. */
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
import { print } from "../terminal/print.ts";

export interface BindOptions {
  /** Without it nothing is changed, and what would be is said. */
  readonly yes: boolean;
  readonly json?: boolean;
  readonly sysfs?: Sysfs;
}

/** The exit code: 3 if it was not done for lack of a yes. */
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

/** The exit code, as of {@link bind}. */
export async function unbind(name: string, options: BindOptions): Promise<number> {
  const device = fullName(name);
  if (!options.yes)
    throw new EnvironmentError(`${device} would be taken from whoever drives it now: say --yes to do it`);
  say(unbindFromVfio(options.sysfs ?? new Sysfs(), device), options);
  return 0;
}

function say({ name, before, after }: Binding, { json }: BindOptions): void {
  const text = `${name}: ${before ?? "no driver"} -> ${after ?? "no driver"}`;
  print(json ? `${JSON.stringify({ schema: "dmalink.bind/1", name, before, after }, null, 2)}\n` : `${text}\n`);
}
