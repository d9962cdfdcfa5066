/** What programs map through VFIO and iommufd, for people. */
import type { UserMappings } from "../../analysis/index.ts";
import { bytes, count, plural, share } from "../../base/index.ts";
import type { Style } from "../text/style.ts";

/** Tasks that are named; the others are counted. */
const NAMED = 4;

/** Lines about mappings that no event names a device for. */
export function userMappingsText(use: UserMappings, { paint }: Style): string[] {
  const { mappings, peak, budget, tasks, leaves, missed, short, long } = use;
  const lines = [paint("strong", "mappings without a device's name (VFIO, iommufd; or two-step without probes)")];
  if (mappings > 0) {
    const names = Object.entries(tasks);
    const more = names.length > NAMED ? `, ${plural(names.length - NAMED, "other")}` : "";
    lines.push(
      `  by           ${names
        .slice(0, NAMED)
        .map(([name, n]) => `${name} ${count(n)}`)
        .join(", ")}${more}`,
      `  at once      at most ${count(peak)}: ${share(peak / budget)} of the ${count(budget)} entries of a VFIO container`,
      `  leaves       4 KiB ${count(leaves["4K"])}, 2 MiB ${count(leaves["2M"])}, 1 GiB ${count(leaves["1G"])}`,
      `  superpages   ${missedText(missed)}`,
    );
  }
  const odd = [
    ...(short.unmaps > 0 ? [`${count(short.unmaps)} took back less than asked (${bytes(short.bytes)} less)`] : []),
    ...(long.unmaps > 0 ? [`${count(long.unmaps)} took back more (${bytes(long.bytes)} more)`] : []),
  ];
  lines.push(`  unmaps       ${odd.length === 0 ? "all took back what was asked" : odd.join(", ")}`);
  if (use.incomplete) lines.push("  More was mapped at once than can be compared: these numbers are at least so many.");
  return lines;
}

function missedText({ fits, misplaced }: UserMappings["missed"]): string {
  if (fits + misplaced === 0) return "leaves of 4 KiB nowhere cover 2 MiB that is contiguous";
  const both = [
    ...(fits > 0 ? [`${count(fits)} as things are`] : []),
    ...(misplaced > 0 ? [`${count(misplaced)} at addresses aligned as the memory is`] : []),
  ];
  return `leaves of 4 KiB cover ${plural(fits + misplaced, "block")} of 2 MiB that is contiguous: ${both.join(", ")}`;
}
