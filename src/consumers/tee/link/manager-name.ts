/**
 * The name of a security manager, as it is written into a device's `connect` file.
 *
 * Linux reads `tsm` and a number and looks no further: white space before the number, anything after it, and numbers beyond 32
 * bits pass. Here a name is a name, unless Linux's reading is asked for.
 */

/** The number in a name; undefined if it is none. */
export function managerNumber(text: string, linuxCompatible: boolean): number | undefined {
  const match = (linuxCompatible ? /^tsm[\t\n\v\f\r \u00a0]*(-?\d+)/ : /^tsm(\d+)\n?$/).exec(text);
  if (!match) return undefined;
  return linuxCompatible ? Number(BigInt.asIntN(32, BigInt(match[1]!))) : Number(match[1]!);
}

/** `text` names `name`: one newline at the end is nothing. */
export const names = (text: string, name: string): boolean => text === name || text === `${name}\n`;
