/**
 * Names and numbers as kernel messages print them.
 *
 * Promises: every pattern here is anchored and without nested repetition, so that a line costs its length and no more.
 */

/** Written `0000:00:06.0`, `00:06.0`, `0x00:0x02.0`: one form, the first. Without a segment it is segment 0. */
export function pciName(text: string): string | undefined {
  const match = /^(?:(?:0x)?([0-9a-f]{4,8}):)?(?:0x)?([0-9a-f]{1,2}):(?:0x)?([0-9a-f]{1,2})\.(?:0x)?([0-7])$/i.exec(
    text,
  );
  if (!match) return undefined;
  const [, segment = "0000", bus, slot, fn] = match;
  return `${segment}:${bus!.padStart(2, "0")}:${slot!.padStart(2, "0")}.${fn}`.toLowerCase();
}

/** A device's name: a PCI one in its one form, any other as it is. */
export const deviceName = (text: string): string => pciName(text) ?? text;

/** A PCI requester id as a name of segment 0: bus in the upper byte, then device and function. */
export const requesterName = (id: number): string => {
  const part = (value: number): string => value.toString(16).padStart(2, "0");
  return `0000:${part(id >>> 8)}:${part((id >>> 3) & 31)}.${id & 7}`;
};

/** `0x1000`, `1000`: hexadecimal either way; `undefined` where it is none or wider than 64 bits. */
export function hexBits(text: string): bigint | undefined {
  const digits = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(text)?.[1];
  return digits === undefined ? undefined : BigInt(`0x${digits}`);
}

/** A count in decimal that stays exact; `undefined` where it is none. */
export function decimal(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text);
}

/** A small number, hexadecimal where it is written with 0x, else decimal. */
export function number(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const hexadecimal = /^0x([0-9a-f]{1,8})$/i.exec(text)?.[1];
  return hexadecimal === undefined ? decimal(text) : Number.parseInt(hexadecimal, 16);
}

/** The driver and the device of `driver device: message`, which `dev_err` puts in front of what begins at `end`. */
export function ownerBefore(message: string, end: number): { driver: string | undefined; device: string | undefined } {
  const front = message.slice(Math.max(0, end - 128), end).trimEnd();
  if (!front.endsWith(":")) return { driver: undefined, device: undefined };
  const words = front.slice(0, -1).split(" ");
  const device = words.at(-1);
  if (device === undefined || device === "" || device.endsWith(":")) return { driver: undefined, device: undefined };
  const driver = words.at(-2);
  return {
    driver: driver === undefined || driver === "" || driver.endsWith(":") ? undefined : driver,
    device: deviceName(device),
  };
}

/** The value of `name=value` inside of a list that commas or blanks separate. */
export function field(text: string, name: string): string | undefined {
  for (let at = text.indexOf(`${name}=`); at >= 0; at = text.indexOf(`${name}=`, at + 1)) {
    if (at > 0 && !/[\s,[(]/.test(text[at - 1]!)) continue;
    const from = at + name.length + 1;
    let to = from;
    while (to < text.length && !/[\s,\])]/.test(text[to]!)) to++;
    return text.slice(from, to);
  }
  return undefined;
}
