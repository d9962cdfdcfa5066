/** What tidy complains of and why it stands. A debt that is paid must go: tidy says so. */

/** `key` is what a complaint names (see `checks.ts`), or the file alone: then all of that file. */
export interface Debt {
  readonly check: string;
  readonly key: string;
  readonly reason: string;
}

const debts = (check: string, reason: string, ...keys: string[]): Debt[] => keys.map((key) => ({ check, key, reason }));

const HOT = "a hot path: an object for its arguments would be made for every page";
const FIELDS = "one parameter for each field of the specification's command";
const WAITS = "both directions of the vendor's commands are judged by golden data; their unit is not built";
const TESTED = "a part or a limit that its own test must name";

export const DEBTS: readonly Debt[] = [
  ...debts(
    "dead-export",
    WAITS,
    "src/layouts/invalidation/amd-commands.ts",
    "src/layouts/invalidation/blocks.ts",
    "src/layouts/invalidation/smmu-commands.ts",
    "src/layouts/invalidation/vtd-decode.ts",
    "src/layouts/invalidation/vtd-descriptors.ts",
    "src/layouts/invalidation/vtd-range.ts",
  ),
  ...debts("large-function", FIELDS, "src/layouts/invalidation/amd-commands.ts"),
  ...debts("large-function", FIELDS, "src/layouts/invalidation/smmu-commands.ts"),
  ...debts("large-function", FIELDS, "src/layouts/invalidation/vtd-decode.ts"),
  ...debts("large-function", FIELDS, "src/layouts/invalidation/vtd-descriptors.ts"),
  ...debts("large-function", FIELDS, "src/layouts/invalidation/vtd-range.ts"),
  ...debts(
    "large-function",
    HOT,
    "src/pagetable/map.ts",
    "src/pagetable/map-runs.ts",
    "src/pagetable/tree.ts",
    "src/trace/field-plan.ts",
    "src/consumers/block/dma-iterator.ts",
  ),
  ...debts(
    "dead-export",
    TESTED,
    "src/layouts/pagetable/layout.ts levelOfSize",
    "src/layouts/vtd/roots.ts ROOT_TABLE_ADDRESS",
    "src/layouts/uapi/vfio-iommufd.ts STRUCTURES",
    "src/layouts/uapi/vfio-migration.ts MIGRATION_STRUCTURES",
    "src/layouts/uapi/vfio-migration.ts MIGRATION_CONSTANTS",
    "src/layouts/nvme/registers.ts versionName",
    "src/layouts/virtio-iommu/faults.ts",
    "src/layouts/virtio-iommu/requests.ts",
    "src/layouts/ide/capability.ts IDE_CONTROL",
    "src/trace/string-table.ts NOT_KEPT",
    "src/trace/write-dat.ts DatWriterOptions",
    "src/analysis/lifetimes/history.ts HISTORY_LIMIT",
    "src/analysis/faults/recorded-addresses.ts",
    "src/analysis/faults/judge.ts FaultInQuestion",
    "src/p2p/chunks.ts PhysRange",
    "src/iommu/vtd/invalidation-queue.ts QUEUE_SLOTS",
    "src/hosts/simulated/units/tables-unit.ts FAULT_LIMIT",
    "src/hosts/simulated/units/vtd/stale-windows.ts StaleWindows",
    "src/hosts/simulated/tee/link-cipher.ts SealedBytes",
  ),
  ...debts(
    "dead-export",
    "made for tests, and still beside what they test: it belongs under test/",
    "src/analysis/findings/sample-trace.ts",
    "src/trace/sample-formats.ts",
    "src/trace/text/read-text.ts",
  ),
  ...debts(
    "large-function",
    "one grammar or one rule, read from top to bottom; cutting it would hide the order",
    "src/trace/kernel-log/line-front.ts",
    "src/analysis/findings/use-two-step.ts",
    "src/analysis/lifetimes/dispatch.ts",
    "src/simulation/nvme/disks.ts",
  ),
  ...debts(
    "large-function",
    "numbers that an object would only repeat by name",
    "src/analysis/lifetimes/ranges.ts",
    "src/analysis/findings/sample-trace.ts",
    "src/iommu/vtd/cache-tags.ts",
    "src/hosts/simulated/devices/nvme/data.ts",
    "src/hosts/simulated/units/vtd/walk.ts",
    "src/consumers/nvme/queue-pair.ts",
  ),
];
