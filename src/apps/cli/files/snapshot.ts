/** A snapshot of page tables from a file, and what is known beside it: the registers that say where the root is. */
import { readFile } from "node:fs/promises";
import { registersOf, type UnitRegisters } from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";
import { openInput } from "./input.ts";

/** Snapshots are read as a whole: 1 GiB holds a quarter of a million table pages. */
const SIZE_LIMIT = 2 ** 30;

/** Something of what was given cannot be used. */
export const badInput = (message: string, details: object): DmaError =>
  new DmaError("ERR_DMA_INPUT", "EINVAL", message, details);

/** All bytes of `file`, unpacked; of a trace its head alone, which is enough to refuse it. */
export async function readWhole(file: string): Promise<Uint8Array> {
  const source = await openInput(file);
  try {
    const { input } = source;
    if (!("stream" in input)) return await input.read(0, 16); // a trace.dat: its head is enough to refuse it
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of input.stream) {
      size += part.length;
      if (size > SIZE_LIMIT)
        throw badInput(`${file}: more than ${SIZE_LIMIT} bytes unpacked, which no snapshot of tables has`, { file });
      parts.push(part.slice());
    }
    return Buffer.concat(parts, size);
  } finally {
    await source.close();
  }
}

/** `NAME.json` beside `NAME.snap` or `NAME.snap.gz`. */
export async function readRegisters(file: string): Promise<UnitRegisters> {
  const path = `${file.replace(/\.gz$/, "").replace(/\.snap$/, "")}.json`;
  const cure = "give the root table's address with --root 0x…";
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch {
    throw badInput(`${path} is not there, which would say where the root table is: ${cure}`, { path });
  }
  let registers: UnitRegisters | undefined;
  try {
    registers = registersOf(JSON.parse(text));
  } catch (error) {
    throw badInput(`${path} is not JSON (${(error as Error).message.replaceAll(/\s+/g, " ")}): mend it, or ${cure}`, {
      path,
    });
  }
  if (registers === undefined)
    throw badInput(
      `${path} has neither registers.rtaddr like "0xdea400" nor an SMMU's strtabBase and strtabBaseCfg: mend it, or ${cure}`,
      { path },
    );
  return registers;
}

/** What --root says: an address, or the register's value. */
export function parseRoot(text: string): bigint {
  const digits = String(text); // a command line may have made a number of it
  const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(digits) ? BigInt(digits) : -1n;
  if (value < 0n || value >= 1n << 64n || (value & 0x3ffn) !== 0n)
    throw badInput(`--root ${digits}: an address of a page is needed, like 0xdea000, or the register, like 0xdea400`, {
      root: digits,
    });
  return value;
}

/** "0000:00:04.0" or "00:04.0", which `option` says: its segment, bus, and the slot and function as one number. */
export function parsePciAddress(option: string, text: string): { segment: number; bus: number; function: number } {
  const match = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(text);
  const slot = match ? Number.parseInt(match[3]!, 16) : 32;
  if (!match || slot > 31)
    throw badInput(`${option} ${text}: a PCI address is needed, like 0000:00:04.0 or 00:04.0`, { device: text });
  return {
    segment: Number.parseInt(match[1] ?? "0", 16),
    bus: Number.parseInt(match[2]!, 16),
    function: slot * 8 + Number(match[4]),
  };
}

/** Its name as the kernel writes it: "0000:00:04.0". */
export function bdfOf({ segment, bus, function: fn }: ReturnType<typeof parsePciAddress>): string {
  const two = (value: number): string => value.toString(16).padStart(2, "0");
  return `${segment.toString(16).padStart(4, "0")}:${two(bus)}:${two(fn >> 3)}.${fn & 7}`;
}

/** Bytes of a text's beginning by which it is told what it is. */
const HEAD_BYTES = 4096;

/** The beginning of a file as text; of one that is none, whatever that gives. */
export const textHead = (bytes: Uint8Array): string => new TextDecoder().decode(bytes.subarray(0, HEAD_BYTES));
