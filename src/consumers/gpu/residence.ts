/** Where the pages of a range are, and whether it can move at all: asked before anything is taken out. */
import { PAGE_SIZE } from "../../base/index.ts";
import { newPageEntry, UserAddr, type UserMemory } from "../../platform/index.ts";
import { cannotMigrate } from "./errors.ts";

/** `here`: all. `partly`: some. `group`: none, and all that there are in another GPU of the group. `elsewhere`: none. */
type Residence = "here" | "partly" | "group" | "elsewhere";

/** @throws DmaError ERR_DMA_GPU_MIGRATE: ENOENT nothing mapped, EINVAL not one area, EBUSY not anonymous */
export function checkRange(memory: UserMemory, start: number, end: number): void {
  const area = memory.areaAt(UserAddr(start));
  if (!area) throw cannotMigrate("ENOENT", start, "nothing is mapped there");
  if (end > area.end || start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0 || end <= start)
    throw cannotMigrate("EINVAL", start, "it is not whole pages of one area");
  if (area.kind !== "anonymous" || area.shared)
    throw cannotMigrate("EBUSY", start, "it is not memory of the process's own");
}

/** Looks at every entry of [start, end). */
export function residence(
  memory: UserMemory,
  start: number,
  end: number,
  isHere: (page: number) => boolean,
): Residence {
  const entry = newPageEntry();
  let [here, others, rest] = [0, 0, 0];
  for (let at = start; at < end; at += PAGE_SIZE) {
    memory.entryAt(UserAddr(at), entry);
    if (entry.kind !== "device-private") rest++;
    else if (isHere(entry.page)) here++;
    else others++;
  }
  if (here > 0) return rest + others === 0 ? "here" : "partly";
  if (others === 0) return "elsewhere";
  return rest === 0 ? "group" : "partly";
}

/** Every page of [start, end) is in the CPU's page table. */
export function isPresent(memory: UserMemory, start: number, end: number): boolean {
  const entry = newPageEntry();
  for (let at = start; at < end; at += PAGE_SIZE) {
    memory.entryAt(UserAddr(at), entry);
    if (entry.kind !== "present") return false;
  }
  return true;
}
