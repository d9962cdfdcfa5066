/**
 * Secrets of guests, and the watch that none gets out.
 *
 * Idea: private memory is filled with cells that begin with the guest's own mark, which is nowhere else. Whoever sees a mark sees
 * a secret: on a wire, in a page that is not private, in another guest's memory, or in a device outside the trust.
 */
import { type PhysPage, PhysPage as pageOf, type Random } from "../../base/index.ts";
import type { TeeMachine, WireSight } from "../../hosts/simulated/tee/index.ts";
import { Broken } from "../scenario.ts";

/** A cell: the mark, and bytes that no other cell has. */
const CELL = 32;
const MARK = Uint8Array.of(0xa7, 0x5e, 0xc2, 0xe7, 0x0f, 0xb1, 0x9d);

/** Fills memory with secrets of a guest. */
export function fillWithSecrets(bytes: Uint8Array, guest: number, random: Random): void {
  for (let at = 0; at < bytes.length; at += CELL) {
    const cell = bytes.subarray(at, at + CELL);
    for (let i = 0; i < cell.length; i++)
      cell[i] = i < MARK.length ? MARK[i]! : i === MARK.length ? guest : random.below(256);
  }
}

/** The guest whose secret is in these bytes, other than `but`; 0 if there is none. */
export function secretIn(bytes: Uint8Array, but = 0): number {
  for (let at = bytes.indexOf(MARK[0]!); at >= 0; at = bytes.indexOf(MARK[0]!, at + 1)) {
    if (at + MARK.length >= bytes.length || !MARK.every((byte, i) => bytes[at + i] === byte)) continue;
    const guest = bytes[at + MARK.length]!;
    if (guest !== but) return guest;
  }
  return 0;
}

/** What is on a wire. @throws Broken if it is a secret */
export function watchWire({ bytes, from, to, stream, trusted }: WireSight): void {
  const guest = secretIn(bytes);
  if (guest > 0)
    throw new Broken(
      "secret",
      `a secret of guest ${guest} is on the wire from ${from.toString(16)} to ${to.toString(16)}, T=${Number(trusted)}, ` +
        (stream === undefined ? "on no stream" : `on stream ${stream}`),
    );
}

/** Looks over everything that may not hold a secret. @throws Broken if something does */
export function lookForSecrets(
  tee: TeeMachine,
  untrusted: readonly { readonly name: string; readonly bytes: Uint8Array }[],
): void {
  const page = new Uint8Array(4096);
  for (const [number, { owner, isPrivate }] of tee.pages.entries()) {
    tee.machine.dram.read(pageOf.start(number as PhysPage), page);
    const guest = secretIn(page, isPrivate ? owner : 0);
    if (guest > 0)
      throw new Broken(
        "secret",
        `a secret of guest ${guest} is in ${isPrivate ? `memory of guest ${owner}` : "shared memory"}`,
      );
  }
  for (const { name, bytes } of untrusted) {
    const guest = secretIn(bytes);
    if (guest > 0) throw new Broken("secret", `a secret of guest ${guest} is in ${name}, which is outside its trust`);
  }
}
