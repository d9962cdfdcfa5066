/**
 * Peer memory of a device as a program maps it: a window of pages that other devices may reach as well.
 *
 * Idea: the pages are there from the start and belong to the device for good. What is unmapped does not come back by a touch: the mapping
 * was the program's only way to it.
 */
import type { PhysPage } from "../../../base/index.ts";
import type { FaultOutcome, Steps } from "../../../platform/index.ts";
import type { Area, DeviceRegion, Folio, MappedObject } from "./structures.ts";

/** What a machine knows of pages that are not the system's. */
interface RegionFrames {
  folio(frame: PhysPage): Folio | undefined;
  enterRegion(frame: PhysPage, order: 0, region: DeviceRegion): Folio;
}

const PEER_REGION: DeviceRegion = {
  kind: "peer",
  owner: undefined,
  freed: () => {},
  split: () => {},
  // biome-ignore lint/correctness/useYield: the CPU reaches peer memory, so nobody ever waits for it
  *bringBack(): Steps<FaultOutcome> {
    return "no-page";
  },
};

export class PeerObject implements MappedObject {
  readonly name = "peer";
  readonly isHugetlb = false;
  readonly endOffset: number;
  readonly areas: Area[] = [];
  readonly #frames: RegionFrames;
  readonly #first: PhysPage;

  constructor(frames: RegionFrames, first: PhysPage, pages: number) {
    this.#frames = frames;
    this.#first = first;
    this.endOffset = pages;
  }

  acquire(): void {}

  release(): void {}

  peek(): Folio | undefined {
    return undefined;
  }

  get(): Folio | undefined {
    return undefined;
  }

  /** The page at `offset`, for the mapping itself. */
  folioAt(offset: number): Folio {
    const frame = (this.#first + offset) as PhysPage;
    const known = this.#frames.folio(frame);
    if (known) return known;
    const folio = this.#frames.enterRegion(frame, 0, PEER_REGION);
    folio.kind = "file";
    folio.object = this;
    folio.offset = offset;
    return folio;
  }
}
