/**
 * A simulated virtio-iommu: requests on one side, accesses of devices on the other, and between them the mappings that it keeps.
 *
 * Idea: it reads the bytes of requests with no code of the driver's, and holds to what the specification says a device does: no
 * mapping over another, none split, a domain that ends with its last endpoint. It has no cache, so nothing in it is stale.
 * Promises: every request gets a status; a refused access is a report, never an exception.
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13.
 */
import type { IovaPage, PhysPage } from "../../../../base/index.ts";
import {
  decodeRequest,
  encodeFault,
  FAULT_REASON,
  MAP_FLAG,
  putStatus,
  STATUS,
  type VirtioIommuRequest,
} from "../../../../layouts/virtio-iommu/index.ts";
import type { VirtioIommuConfig, VirtioIommuQueues } from "../../../../platform/index.ts";

/** What a simulated virtio-iommu is like. */
export interface SimulatedVirtioOptions {
  /** Bytes, a bitmap. Default: every power of two from 4096 on, as QEMU's. */
  readonly pageSizes?: bigint;
  /** Bits of an address that it translates. Default 64. */
  readonly inputBits?: number;
  /** Mappings may be of registers. Default true. */
  readonly mmio?: boolean;
  /** Mappings that it has memory for, in all domains. Default: no limit. */
  readonly mappingLimit?: number;
  /** What devices that are attached to no domain reach: physical memory, or nothing. Default false: nothing. */
  readonly bypass?: boolean;
  /** Buffers that the driver has put into the event queue: reports that wait. Default 64. */
  readonly faultBuffers?: number;
}

interface Mapping {
  readonly first: IovaPage;
  readonly last: IovaPage;
  readonly phys: PhysPage;
  readonly flags: number;
}

interface Domain {
  readonly endpoints: Set<number>;
  /** In order of addresses; no two of them meet. */
  readonly mappings: Mapping[];
}

/** See the head of the file. */
export class SimulatedVirtioIommu implements VirtioIommuQueues {
  /** What its configuration space says (virtio 1.3, 5.13.4). */
  readonly config: VirtioIommuConfig;
  faultsLost = 0;
  /** Requests by type and how often the driver told of some. */
  readonly counts: {
    /** ATTACH requests. */
    attach: number;
    /** DETACH requests. */
    detach: number;
    /** MAP requests. */
    map: number;
    /** UNMAP requests. */
    unmap: number;
    /** Requests that are none, or too short. */
    invalid: number;
    /** Times that the driver told of requests. */
    submissions: number;
  } = {
    attach: 0,
    detach: 0,
    map: 0,
    unmap: 0,
    invalid: 0,
    submissions: 0,
  };
  /** What goes wrong on request: a status instead of the work. */
  refuse: ((request: VirtioIommuRequest) => number | undefined) | undefined;
  readonly #bypass: boolean;
  readonly #mappingLimit: number;
  readonly #faultBuffers: number;
  readonly #granulePages: number;
  readonly #domains = new Map<number, Domain>();
  readonly #attached = new Map<number, Domain>();
  #mappings = 0;
  #faults: Uint8Array[] = [];

  /** No endpoint has a domain. */
  constructor(options: SimulatedVirtioOptions = {}) {
    const { pageSizes = 2n ** 64n - 4096n, inputBits = 64 } = options;
    this.config = {
      pageSizes,
      lastPage: 2 ** (inputBits - 12) - 1,
      domains: { first: 0, last: 2 ** 32 - 1 },
      mmio: options.mmio ?? true,
    };
    this.#granulePages = Number((pageSizes & -pageSizes) / 4096n);
    this.#bypass = options.bypass ?? false;
    this.#mappingLimit = options.mappingLimit ?? Number.POSITIVE_INFINITY;
    this.#faultBuffers = options.faultBuffers ?? 64;
  }

  /** Mappings that it keeps. */
  get mappings(): number {
    return this.#mappings;
  }

  // What the driver sees.

  submit(requests: readonly Uint8Array[]): void {
    this.counts.submissions++;
    for (const bytes of requests) {
      const request = decodeRequest(bytes);
      this.counts[request.type]++;
      putStatus(bytes, request.type === "invalid" ? request.status : (this.refuse?.(request) ?? this.#work(request)));
    }
  }

  takeFaults(): Uint8Array[] {
    const faults = this.#faults;
    this.#faults = [];
    return faults;
  }

  // What devices see.

  /** Where an access of `requester` to `page` goes; -1, and a report, if it may not. It knows no PASIDs. */
  translate(requester: number, page: IovaPage, access: "read" | "write", pasid = -1): PhysPage | -1 {
    const domain = this.#attached.get(requester);
    if (pasid >= 0 || (!domain && !this.#bypass)) return this.#refuse(requester, page, access, FAULT_REASON.domain);
    if (!domain) return page as number as PhysPage;
    const mapping = domain.mappings[this.#place(domain, page)];
    const covers = mapping && mapping.first <= page;
    if (!covers || (mapping.flags & MAP_FLAG[access]) === 0)
      return this.#refuse(requester, page, access, FAULT_REASON.mapping);
    return (mapping.phys + (page - mapping.first)) as PhysPage;
  }

  #refuse(endpoint: number, page: IovaPage, access: "read" | "write", reason: number): -1 {
    if (this.#faults.length < this.#faultBuffers)
      this.#faults.push(encodeFault({ reason, access, endpoint, address: page * 4096 }));
    else this.faultsLost++;
    return -1;
  }

  #work(request: VirtioIommuRequest): number {
    switch (request.type) {
      case "attach":
        return this.#attach(request.domain, request.endpoint);
      case "detach": {
        const domain = this.#domains.get(request.domain);
        if (!domain?.endpoints.has(request.endpoint)) return domain ? STATUS.invalid : STATUS.noEntry;
        this.#detach(request.endpoint);
        return STATUS.ok;
      }
      case "map":
        return this.#map(request);
      case "unmap":
        return this.#unmap(request);
    }
  }

  #attach(number: number, endpoint: number): number {
    let domain = this.#domains.get(number);
    if (domain?.endpoints.has(endpoint)) return STATUS.ok;
    this.#detach(endpoint);
    domain = this.#domains.get(number);
    if (!domain) {
      domain = { endpoints: new Set(), mappings: [] };
      this.#domains.set(number, domain);
    }
    domain.endpoints.add(endpoint);
    this.#attached.set(endpoint, domain);
    return STATUS.ok;
  }

  #detach(endpoint: number): void {
    const domain = this.#attached.get(endpoint);
    if (!domain) return;
    this.#attached.delete(endpoint);
    domain.endpoints.delete(endpoint);
    if (domain.endpoints.size > 0) return;
    this.#mappings -= domain.mappings.length;
    for (const [number, each] of this.#domains) if (each === domain) this.#domains.delete(number);
  }

  #map({ domain: number, first, last, phys, flags }: VirtioIommuRequest & { type: "map" }): number {
    const domain = this.#domains.get(number);
    if (!domain) return STATUS.noEntry;
    const isAligned = [first, last + 1, phys].every((page) => page % this.#granulePages === 0);
    if (!isAligned || last > this.config.lastPage) return STATUS.range;
    const known = MAP_FLAG.read | MAP_FLAG.write | (this.config.mmio ? MAP_FLAG.mmio : 0);
    if ((flags & ~known) !== 0) return STATUS.invalid;
    const at = this.#place(domain, first);
    const next = domain.mappings[at];
    if (next && next.first <= last) return STATUS.invalid;
    if (this.#mappings >= this.#mappingLimit) return STATUS.noMemory;
    domain.mappings.splice(at, 0, { first, last, phys, flags });
    this.#mappings++;
    return STATUS.ok;
  }

  #unmap({ domain: number, first, last }: VirtioIommuRequest & { type: "unmap" }): number {
    const domain = this.#domains.get(number);
    if (!domain) return STATUS.noEntry;
    const { mappings } = domain;
    const from = this.#place(domain, first);
    let to = from;
    while (to < mappings.length && mappings[to]!.first <= last) to++;
    const splits = to > from && (mappings[from]!.first < first || mappings[to - 1]!.last > last);
    if (splits) return STATUS.range;
    mappings.splice(from, to - from);
    this.#mappings -= to - from;
    return STATUS.ok;
  }

  /** Place of the first mapping that ends at or behind `page`. */
  #place({ mappings }: Domain, page: number): number {
    let [low, high] = [0, mappings.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (mappings[middle]!.last >= page) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
