/**
 * Looks at the machine: everything that pictures show, read from the machine's own state.
 *
 * Promises: reads only. Costs what the picture holds, not what the machine does.
 */
import { COUNTER_NAMES, type CounterName, PAGE_SIZE, type PhysAddr } from "../../../../base/index.ts";
import { DmaEngine, type SimulatedHost } from "../../../../hosts/simulated/index.ts";
import { ACS } from "../../../../layouts/pci/index.ts";
import type { TranslationTables } from "../../../../platform/index.ts";
import { PUBLISHED_COST, predict } from "../../../../replay/index.ts";
import { BOUNCE_SLOT } from "../../../../swiotlb/index.ts";
import type { AddressBook } from "./happenings.ts";
import type {
  CellPicture,
  CountPicture,
  EntryPicture,
  FramePicture,
  MachinePicture,
  NodePicture,
  RangePicture,
  SpacePicture,
} from "./picture.ts";
import { readTables, rightsOf } from "./tables.ts";
import type { Watched } from "./watched.ts";

const MOST_CELLS = 64;
const MOST_RANGES = 64;
const MOST_FRAMES = 64;
const PREVIEW_BYTES = 16;
/** A hole inside a range that is shown page by page; a longer one is one cell. */
const SMALL_HOLE = 8;

const NOTHING: MachinePicture = {
  nodes: [],
  spaces: [],
  frames: [],
  framesLeft: 0,
  bounces: [],
  accesses: [],
  events: [],
  eventsLeft: 0,
  counts: [],
  clockMs: 0,
  handles: { devices: [], ranges: [], mappings: [] },
};

/** The machine as it is now; an empty picture where a program made none. */
export function look(watched: Watched): MachinePicture {
  const { host, happenings, accesses } = watched;
  const said = { events: happenings.lines, eventsLeft: happenings.left };
  if (!host) return { ...NOTHING, ...said };
  const spaces = spacesOf(watched, host);
  const bounces = bouncesOf(watched, host);
  const pages = new Set<number>();
  for (const { ranges, cached } of spaces) {
    for (const { cells } of ranges) for (const { target } of cells) if (target >= 0) pages.add(target);
    for (const { target } of cached) pages.add(target);
  }
  for (const { frame, pool } of bounces) pages.add(frame).add(pool);
  const now = pages.size;
  for (const page of [...happenings.frames].reverse()) if (pages.size < Math.max(now, MOST_FRAMES)) pages.add(page);
  const shown = [...pages].slice(0, MOST_FRAMES).sort((a, b) => a - b);
  return {
    nodes: nodesOf(host),
    spaces,
    frames: shown.map((page) => frameOf(host, page)),
    framesLeft: Math.max(0, pages.size - MOST_FRAMES),
    bounces,
    accesses,
    ...said,
    counts: [...watched.opened].map(([device, { dma }]) => countOf(device, dma.counters)),
    clockMs: host.clock.nowMs(),
    handles: handlesOf(watched),
  };
}

function nodesOf({ machine }: SimulatedHost): NodePicture[] {
  const bridges = machine.tree.hostBridges.map(
    (_, i): NodePicture => ({
      name: bridgeName(i),
      kind: "host-bridge",
      parent: undefined,
      redirects: false,
      bars: [],
    }),
  );
  const nodes = [...machine.tree.nodes()].map(
    (node): NodePicture => ({
      name: node.name,
      kind: node.kind,
      parent: node.parent?.name ?? bridgeName(machine.tree.hostBridges.indexOf(node.hostBridge)),
      redirects: (node.acsControl & (ACS.requestRedirect | ACS.completionRedirect | ACS.egressControl)) !== 0,
      bars: node.bars.map(({ index, phys, length }) => ({ index, phys, lengthBytes: length })),
    }),
  );
  return [...bridges, ...nodes];
}

const bridgeName = (index: number): string => `root complex ${index}`;

/** Every address space: that of each opened device, and tables that somebody else attached. */
function spacesOf(watched: Watched, host: SimulatedHost): SpacePicture[] {
  const byTables = new Map<number, { readonly tables: TranslationTables; readonly devices: string[] }>();
  const spaces: SpacePicture[] = [];
  for (const [name, { domain }] of watched.opened) {
    if (domain) byTables.set(domain.tables.domainId, { tables: domain.tables, devices: [name] });
    else spaces.push(untranslated(name, watched.happenings.book(name)));
  }
  for (const [requester, tables] of host.tablesUnit?.attachments ?? []) {
    const name = host.machine.tree.node(requester)?.name ?? `requester ${requester}`;
    const known = byTables.get(tables.domainId);
    if (!known || known.tables.memory !== tables.memory) byTables.set(tables.domainId, { tables, devices: [name] });
    else if (!known.devices.includes(name)) known.devices.push(name);
  }
  for (const { tables, devices } of byTables.values()) spaces.push(translated(watched, host, tables, devices));
  return spaces.sort((a, b) => ((a.devices[0] ?? "") < (b.devices[0] ?? "") ? -1 : 1));
}

function translated(
  watched: Watched,
  host: SimulatedHost,
  tables: TranslationTables,
  devices: readonly string[],
): SpacePicture {
  const read = readTables(tables);
  const cache = [...(host.tablesUnit?.cached(tables.domainId) ?? [])];
  const cached = cache.map(({ page, target, prot }) => {
    const leaf = leafAt(read.leaves, page);
    const stale = !leaf || leaf.target + (page - leaf.page) !== target || leaf.rights !== rightsOf(prot);
    return { page: page as number, target: target as number, rights: rightsOf(prot), stale };
  });
  const book = devices.map((name) => watched.happenings.books.get(name)).find((each) => each !== undefined);
  const seen = {
    leaves: read.leaves,
    cached: new Map(cached.map((each) => [each.page, each])),
    unsynced: book?.unsynced ?? [],
  };
  const ranges = rangesOf(read.leaves, [...seen.cached.keys()], book);
  return {
    devices,
    format: tables.layout.name,
    ranges: ranges.slice(0, MOST_RANGES).map((range) => ({ ...range, ...cellsOf(range, seen) })),
    tables: read.tables,
    tablesLeft: read.tablesLeft,
    cached,
  };
}

/** A device that emits physical addresses: its mappings, one range each. */
function untranslated(device: string, { direct }: AddressBook): SpacePicture {
  const ranges = [...direct].slice(-MOST_RANGES).map(([address, { lengthBytes }]): RangePicture => {
    const page = Math.floor(address / PAGE_SIZE);
    const pages = Math.ceil((address + lengthBytes) / PAGE_SIZE) - page;
    const shown = Math.min(pages, MOST_CELLS);
    const cells = Array.from({ length: shown }, (_, i): CellPicture => {
      return { page: page + i, pages: 1, state: "mapped", target: page + i, rights: "rw", dirty: false, cached: false };
    });
    return { page, pages, state: "mapped", cells, left: pages - shown };
  });
  return { devices: [device], format: undefined, ranges, tables: [], tablesLeft: 0, cached: [] };
}

type Bare = Pick<RangePicture, "page" | "pages" | "state">;

/** What belongs together: reservations first; then neighbours among what is mapped or cached outside of them. */
function rangesOf(
  leaves: readonly EntryPicture[],
  cachedPages: readonly number[],
  book: AddressBook | undefined,
): Bare[] {
  const ranges: Bare[] = [...(book?.reserved ?? [])].map(([page, { pages, waiting }]) => ({
    page,
    pages,
    state: waiting ? "waiting" : "reserved",
  }));
  const others = [
    ...leaves.map(({ page, pages }) => ({ page, pages })),
    ...cachedPages.map((page) => ({ page, pages: 1 })),
  ]
    .filter(({ page }) => !ranges.some((range) => page >= range.page && page < range.page + range.pages))
    .sort((a, b) => a.page - b.page);
  let last: { page: number; pages: number; state: "mapped" } | undefined;
  for (const { page, pages } of others) {
    if (last && page <= last.page + last.pages + SMALL_HOLE)
      last.pages = Math.max(last.pages, page + pages - last.page);
    else {
      last = { page, pages, state: "mapped" };
      ranges.push(last);
    }
  }
  return ranges.sort((a, b) => a.page - b.page);
}

interface Seen {
  readonly leaves: readonly EntryPicture[];
  readonly cached: ReadonlyMap<number, { readonly target: number; readonly rights: string; readonly stale: boolean }>;
  readonly unsynced: readonly (readonly [number, number])[];
}

function cellsOf({ page, pages }: Bare, { leaves, cached, unsynced }: Seen): Pick<RangePicture, "cells" | "left"> {
  const cells: CellPicture[] = [];
  const end = page + pages;
  let at = page;
  while (at < end && cells.length < MOST_CELLS) {
    const leaf = leafAt(leaves, at);
    const held = cached.get(at);
    if (leaf) {
      const count = Math.min(leaf.page + leaf.pages, end) - at;
      const waits = unsynced.some(([from, to]) => at >= from && at < to);
      const state = held?.stale ? "stale" : waits ? "unsynced" : "mapped";
      const target = held?.stale ? held.target : leaf.target + (at - leaf.page);
      cells.push({
        page: at,
        pages: count,
        state,
        target,
        rights: leaf.rights,
        dirty: leaf.dirty,
        cached: held !== undefined,
      });
      at += count;
    } else if (held) {
      cells.push({
        page: at++,
        pages: 1,
        state: "stale",
        target: held.target,
        rights: held.rights,
        dirty: false,
        cached: true,
      });
    } else {
      const from = at;
      const next = Math.min(
        end,
        ...leaves.filter((each) => each.page > from).map((each) => each.page),
        ...[...cached.keys()].filter((each) => each > from),
      );
      const count = next - at > SMALL_HOLE ? next - at : 1;
      cells.push({ page: at, pages: count, state: "empty", target: -1, rights: "", dirty: false, cached: false });
      at += count;
    }
  }
  return { cells, left: end - at };
}

const leafAt = (leaves: readonly EntryPicture[], page: number): EntryPicture | undefined =>
  leaves.find((leaf) => page >= leaf.page && page < leaf.page + leaf.pages);

function bouncesOf({ happenings }: Watched, { pool }: SimulatedHost): MachinePicture["bounces"] {
  if (!pool) return [];
  return [...happenings.bounces].map(([offset, { phys }]) => ({
    frame: Math.floor(phys / PAGE_SIZE),
    pool: Math.floor((pool.start + offset) / PAGE_SIZE),
  }));
}

function frameOf({ machine, pool }: SimulatedHost, page: number): FramePicture {
  const start = page * PAGE_SIZE;
  const inPool = pool !== undefined && start >= pool.start && start < pool.start + pool.slots * BOUNCE_SLOT;
  const device = machine.devices.find(({ node }) =>
    node.bars.some(({ phys, length }) => start >= phys && start < phys + length),
  );
  const bytes = new Uint8Array(PREVIEW_BYTES);
  // Plain memory can be looked at; registers may do something when they are read.
  if (!device || device.model instanceof DmaEngine) machine.dram.read(start as PhysAddr, bytes);
  return { page, kind: device ? "bar" : inPool ? "pool" : "ram", owner: device?.name, bytes: [...bytes] };
}

function countOf(
  device: string,
  counters: Readonly<Record<CounterName, number>> & { readonly pteWrites: number; readonly invalidations: number },
): CountPicture {
  const counts = Object.fromEntries(COUNTER_NAMES.map((name) => [name, counters[name]])) as Record<CounterName, number>;
  const { pteWrites, invalidations, iovaAllocations, iovaFrees, iovaSteps } = counters;
  const counted = { invalidations, pteWrites, iovaOps: iovaAllocations + iovaFrees, iovaSteps, calls: 0 };
  return { device, counts, priceNs: predict(counted, PUBLISHED_COST) };
}

function handlesOf({ opened, ranges, mappings, happenings }: Watched): MachinePicture["handles"] {
  const held = (device: string, page: number): boolean => {
    const reserved = happenings.books.get(device)?.reserved.get(page);
    return reserved !== undefined && !reserved.waiting;
  };
  const isMapped = (device: string, address: number): boolean =>
    happenings.books.get(device)?.direct.has(address) === true;
  return {
    devices: [...opened.keys()],
    ranges: ranges
      .filter(
        ({ device, page }, i) =>
          held(device, page) && !ranges.some((later, j) => j > i && later.device === device && later.page === page),
      )
      .map(({ id, device, page, pages }) => ({ id, device, page, pages })),
    mappings: mappings
      .filter(
        ({ device, mapping }, i) =>
          isMapped(device, mapping.address) &&
          !mappings.some((later, j) => j > i && later.device === device && later.mapping.address === mapping.address),
      )
      .map(({ id, device, mapping }) => ({ id, device, address: mapping.address, lengthBytes: mapping.length })),
  };
}
