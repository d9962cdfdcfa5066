/** A run of bytes, page by page. */
import { PAGE_SIZE, type PhysPage } from "./addresses.ts";

/** Calls `visit` for each page that [address, + length) touches: the page, where in it, where in the run, and how many bytes. */
export function eachPage(
  address: number,
  length: number,
  visit: (page: PhysPage, offset: number, at: number, length: number) => void,
): void {
  for (let at = 0; at < length; ) {
    const offset = (address + at) % PAGE_SIZE;
    const piece = Math.min(PAGE_SIZE - offset, length - at);
    visit(((address + at - offset) / PAGE_SIZE) as PhysPage, offset, at, piece);
    at += piece;
  }
}
