/**
 * The words of the golden files: how they write numbers, directions, attributes, permissions and errors.
 *
 * Judges read a file with these, and write what dmalink answers the same way.
 */
import { type Direction, DmaError, ERRNO } from "../../src/base/index.ts";
import type { DmaAttributes } from "../../src/dma/index.ts";
import { CACHE, MMIO, NOEXEC, PRIVILEGED, READ, WRITE } from "../../src/layouts/pagetable/index.ts";
import type { InvalidationKind } from "../../src/platform/index.ts";
import { known, type Line } from "./judge.ts";

/** Direction NONE is in the files and not in our types: a caller without types may pass it. */
const NONE = "none" as Direction;

const DIRECTIONS: Readonly<Record<string, Direction>> = {
  NONE,
  BIDI: "bidirectional",
  BIDIRECTIONAL: "bidirectional",
  TO_DEVICE: "to-device",
  FROM_DEVICE: "from-device",
};

/** `undefined`: Linux ignores it where these files use it, and dmalink does not have it. */
const ATTRIBUTES: Readonly<Record<string, keyof DmaAttributes | undefined>> = {
  WEAK_ORDERING: undefined,
  WRITE_COMBINE: undefined,
  MMIO: "mmio",
  PRIVILEGED: "privileged",
  SKIP_CPU_SYNC: "skipCpuSync",
  REQUIRE_COHERENT: "requireCoherent",
  CC_SHARED: "shared",
  FORCE_CONTIGUOUS: "forceContiguous",
  ALLOC_SINGLE_PAGES: "allocSinglePages",
  NO_KERNEL_MAPPING: "noKernelMapping",
  NO_WARN: "noWarn",
  DEBUGGING_IGNORE_CACHELINES: "ignoreCacheLines",
};

const PERMISSIONS: readonly (readonly [letter: string, bit: number])[] = [
  ["R", READ],
  ["W", WRITE],
  ["C", CACHE],
  ["N", NOEXEC],
  ["M", MMIO],
  ["P", PRIVILEGED],
];

const BITS: Readonly<Record<string, number>> = Object.fromEntries(PERMISSIONS);

/** A number, or the text of one, which may be hexadecimal and negative. */
export const number = (value: unknown): number =>
  typeof value === "string" && value.startsWith("-") ? -Number(value.slice(1)) : Number(value);

/** The direction of a line; NONE if it has none. */
export const directionOf = (line: Line): Direction =>
  line["dir"] === undefined ? NONE : known("the direction", DIRECTIONS, line["dir"]);

/** undefined if there are none: as a caller who does not pass any. */
export function attributesOf(text: unknown, mmio = false): DmaAttributes | undefined {
  const names = typeof text === "string" && text !== "" ? text.split("|") : [];
  if (names.length === 0 && !mmio) return undefined;
  const attributes: Partial<Record<keyof DmaAttributes, boolean>> = mmio ? { mmio: true } : {};
  for (const name of names) {
    const attribute = known("the attribute", ATTRIBUTES, name);
    if (attribute !== undefined) attributes[attribute] = true;
  }
  return attributes;
}

/** Permission bits as letters, in the files' order. */
export const permissionLetters = (prot: number): string =>
  PERMISSIONS.map(([letter, bit]) => ((prot & bit) === 0 ? "" : letter)).join("");

export const permissionsOf = (letters: unknown): number =>
  [...(letters as string)].reduce((set, letter) => set | known("the permission", BITS, letter), 0);

/** What the kernel returns for a call: 0, or its errno, negative. Errors that are none of the API's go on. */
export function errnoOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return -ERRNO[error.errno];
  }
}

/** Byte i of what the scripts write: (seed + 7i + 13(i >> 8)) & 255. */
export function pattern(seed: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = seed + 7 * i + 13 * (i >> 8);
  return bytes;
}

/** What the files call the events of a process's memory that its watchers are told. */
export const INVALIDATION_WORDS: Readonly<Record<InvalidationKind, string>> = {
  unmap: "unmap",
  clear: "clear",
  "protection-area": "protVma",
  "protection-page": "protPage",
  migrate: "migrate",
  exclusive: "exclusive",
  release: "release",
};
