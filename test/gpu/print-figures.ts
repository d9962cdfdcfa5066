/** Prints the figures of docs/gpu-memory.md: `npx tsx test/gpu/print-figures.ts`. */
import { faultCost, munmapCost, reservationCost, stormCost } from "./figures.ts";

const POLICIES = ["chunk", "area", "linux-7.2"] as const;

console.log("2 MiB mapped and unmapped");
console.table({
  "one shot, 512 pages": faultCost("one shot", 1),
  "two steps, 512 pages": faultCost("two steps", 1),
  "two steps, 64 KiB runs": faultCost("two steps", 16),
  "two steps, 64 KiB runs, AMD v1": faultCost("two steps", 16, "amd-v1"),
  "two steps, 2 MiB": faultCost("two steps", 512),
});
console.log("munmap of a part of 64 MiB");
for (const gone of [1, 16, 256])
  console.table({
    [`${gone} pages, in parts, only what is cut announced`]: munmapCost(gone, false, true),
    [`${gone} pages, in parts, borders announced`]: munmapCost(gone, false, false),
    [`${gone} pages, whole object (Linux 7.2)`]: munmapCost(gone, true, false),
  });
console.log("reservations: 8 touches in an area of 64 MiB");
console.table(Object.fromEntries(POLICIES.map((policy) => [policy, reservationCost(policy)])));
console.log("a storm of 1500 steps");
console.table(
  Object.fromEntries(
    POLICIES.map((policy) => {
      const counts = stormCost(policy, 1500);
      const moved = counts.movedIn + counts.movedOut;
      return [policy, { ...counts, linksPerMovedPage: (counts.linkedPages / moved).toFixed(2) }];
    }),
  ),
);
