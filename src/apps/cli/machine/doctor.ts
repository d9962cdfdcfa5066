/** What this machine has for real devices, what is missing, and what to type. Changes nothing. */
import { bytes, hex } from "../../../base/index.ts";
import {
  type Survey,
  type SurveyedBackEnd,
  type SurveyedDevice,
  Sysfs,
  survey,
  systemCalls,
} from "../../../hosts/linux/index.ts";
import { leftTable } from "../../../report/text/index.ts";
import { print } from "../terminal/print.ts";

/** What is looked at, and how it is said. */
export interface DoctorOptions {
  readonly json?: boolean;
  /** Where /sys, /proc and /dev are. */
  readonly root?: string;
}

/** Prints the diagnosis; the exit code: 3 if something is missing. */
export async function doctor(options: DoctorOptions): Promise<number> {
  const found = survey(new Sysfs(options.root), whyNoSystemCalls());
  print(options.json ? `${doctorJson(found)}\n` : doctorText(found));
  return found.problems.length === 0 ? 0 : 3;
}

function whyNoSystemCalls(): string | undefined {
  try {
    systemCalls();
    return undefined;
  } catch (error) {
    const { details, message } = error as Error & { details?: { reason?: string } };
    return details?.reason ?? message;
  }
}

function doctorJson(found: Survey): string {
  const { lockedMemory, devices } = found;
  const limit = (value: number): number | "unlimited" => (Number.isFinite(value) ? value : "unlimited");
  return JSON.stringify(
    {
      schema: "dmalink.doctor/1",
      ...found,
      lockedMemory: { ...lockedMemory, soft: limit(lockedMemory.soft), hard: limit(lockedMemory.hard) },
      devices: devices.map((device) => ({
        ...device,
        vendor: hex(device.vendor),
        device: hex(device.device),
        reserved: device.reserved.map(({ start, end, kind }) => ({ start: hex(start), end: hex(end), kind })),
      })),
    },
    null,
    2,
  );
}

export function doctorText(found: Survey): string {
  const { units, groups, lockedMemory, hugePages, devices, problems, bootOptions, entryBudget } = found;
  const unitNames = units.map(
    ({ name, kind, addressBits }) => `${name} (${kind}${addressBits ? `, ${addressBits} bits` : ""})`,
  );
  const locked = lockedMemory.exempt
    ? "no limit (CAP_IPC_LOCK)"
    : Number.isFinite(lockedMemory.soft)
      ? `${bytes(lockedMemory.soft)} a process`
      : "no limit";
  const pages = hugePages.map(({ bytes: size, free, total }) => `${free} of ${total} free of ${bytes(size)}`);
  const lines = [
    `kernel         ${found.kernel}${bootOptions.length > 0 ? ` (${bootOptions.join(" ")})` : ""}`,
    `IOMMU          ${units.length === 0 ? "none" : unitNames.join(", ")}; ${groups} groups`,
    `iommufd        ${backEndText(found.iommufd)}`,
    `VFIO type1     ${backEndText(found.type1)}${entryBudget === undefined ? "" : `; ${entryBudget} mappings a container`}`,
    `locked memory  ${locked}`,
    `huge pages     ${pages.length === 0 ? "none" : pages.join("; ")}`,
  ];
  if (devices.length > 0) lines.push("", ...deviceTable(devices));
  const bindable = devices.find(
    ({ commands, uses, obstacles }) => commands.length > 0 && uses.length + obstacles.length === 0,
  );
  if (bindable !== undefined && problems.length === 0)
    lines.push(
      "",
      `To take a device: dmalink bind ${bindable.name} --yes (and dmalink unbind gives it back), or by hand:`,
      ...bindable.commands.map((command) => `  ${command}`),
    );
  lines.push("");
  if (problems.length === 0) lines.push("Real devices can be used here.");
  for (const { what, cure } of problems) lines.push(`missing: ${what}`, `   cure: ${cure}`);
  return `${lines.join("\n")}\n`;
}

const backEndText = ({ available, reason }: SurveyedBackEnd): string => (available ? "yes" : `no: ${reason}`);

function deviceTable(devices: readonly SurveyedDevice[]): string[] {
  const rows = devices.map(({ name, vendor, device, className, driver, group, obstacles, uses }) => [
    name,
    `${id(vendor)}:${id(device)}`,
    className,
    driver ?? "-",
    group ?? "-",
    [...uses, ...obstacles.map((other) => `shares its group with ${other}`)].join("; "),
  ]);
  const text = leftTable([["device", "id", "what it is", "driver", "group", "in the way"], ...rows]);
  const reserved = new Map<string, string>();
  for (const { group, reserved: regions } of devices)
    if (group !== undefined)
      for (const { start, end, kind } of regions) reserved.set(`${hex(start)}-${hex(end - 1)}`, kind);
  const said = [...reserved].map(([range, kind]) => `${range} (${kind})`);
  return [...text, ...(said.length > 0 ? [`reserved addresses: ${said.join(", ")}`] : [])];
}

const id = (value: number): string => value.toString(16).padStart(4, "0");
