/** Opens IOVA ranges: plain ones, or under checked mode such that tell it of every call. */
import type { Iova, IovaPage } from "../base/index.ts";
import { DebuggedRange } from "./debug/index.ts";
import { IovaRange } from "./iova-range.ts";
import type { TranslatedPath } from "./translated.ts";

/** A range over pages that are reserved already. Linux's debugging knows nothing of ranges. */
export function openRange(
  path: TranslatedPath,
  page: IovaPage,
  pages: number,
  address: Iova,
  length: number,
): IovaRange {
  const { watch, linuxCompatible } = path.device;
  if (watch === undefined || linuxCompatible) return new IovaRange(path, page, pages, address, length);
  return new DebuggedRange(path, page, pages, address, length, watch);
}
