/**
 * How a GPU reaches a byte: its own MMU, and then the bus, its own memory, or the interconnect.
 *
 * Idea: one page at a time, translated and moved at one moment, so that an invalidation that has returned leaves nothing under way.
 * Promises: what the MMU refuses is a question for the driver; what the bus refuses is an error that is told. Not for: retrying.
 */
import { type DmaAddr, IovaPage, PAGE_SIZE } from "../../../../base/index.ts";
import { gpuPlace } from "../../../../layouts/gpu/index.ts";
import type { DevicePort } from "../../device.ts";
import type { SimulatedUnit } from "../../units/tables-unit.ts";
import type { GpuInterconnect } from "./interconnect.ts";

/** What became of an access. */
export type AccessOutcome = "done" | "absent" | "bus";

/** What an access needs of its GPU. */
interface GpuWays {
  readonly mmu: SimulatedUnit;
  readonly memory: Uint8Array;
  readonly interconnect: GpuInterconnect | undefined;
  readonly port: DevicePort;
}

/** Moves bytes of one page of `space`, from or to `bytes`, which do not reach over the page's end. */
export function access(
  ways: GpuWays,
  space: number,
  address: number,
  bytes: Uint8Array,
  how: "read" | "write",
): AccessOutcome {
  const page = ways.mmu.translate(space, IovaPage.of(address as DmaAddr), how);
  if (page < 0) return "absent";
  const place = gpuPlace(page);
  const at = place.index * PAGE_SIZE + (address % PAGE_SIZE);
  if (place.at === "bus") {
    const isDone = how === "read" ? ways.port.read(at as DmaAddr, bytes) : ways.port.write(at as DmaAddr, bytes);
    return isDone ? "done" : "bus";
  }
  const memory = place.at === "local" ? ways.memory : ways.interconnect?.memoryAt(place.link);
  if (!memory || at + bytes.length > memory.length) return "bus";
  if (how === "read") bytes.set(memory.subarray(at, at + bytes.length));
  else memory.set(bytes, at);
  return "done";
}
