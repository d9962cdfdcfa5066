/** A memory region: memory under a key, in a protection domain, with what it may be used for. */
import type { DmaAddr } from "../../base/index.ts";
import { KEY } from "../../layouts/rdma/index.ts";
import type { RegionContext } from "../../platform/index.ts";
import type { RegionBacking } from "./backing.ts";

/** Regions and queue pairs of one domain may use each other. */
export interface ProtectionDomain {
  /** The adapter's number for it. */
  readonly number: number;
}

/** A window (type 2): a key that requests of a queue pair bind to parts of regions. Made and ended by `RdmaDevice`. */
export class MemoryWindow {
  /** The peer's key to what was bound last; every binding has another one. */
  key: number;
  readonly domain: ProtectionDomain;

  constructor(key: number, domain: ProtectionDomain) {
    this.key = key;
    this.domain = domain;
  }
}

/** A registered region. Made and ended by `RdmaDevice`. */
export class MemoryRegion {
  /** For this side (lkey) and for the other (rkey): one number for both, as most adapters have it. */
  readonly key: number;
  /** Where it begins, as its users count; changed by re-registration, as all below. */
  virt: number;
  /** How many bytes. */
  length: number;
  /** What it is made of. */
  backing: RegionBacking;
  /** The protection domain that may use it. */
  domain: ProtectionDomain;
  /** {@link ACCESS} bits. */
  access: number;
  /** `revoked`: its buffer was taken back; the key is not given to others until the region is deregistered. */
  state: "valid" | "revoked" | "released" = "valid";

  /** Made by {@link RdmaDevice.register} and `registerBuffer`, which tell the adapter of it. */
  constructor(
    key: number,
    domain: ProtectionDomain,
    access: number,
    virt: number,
    length: number,
    backing: RegionBacking,
  ) {
    this.key = key;
    this.domain = domain;
    this.access = access;
    this.virt = virt;
    this.length = length;
    this.backing = backing;
  }

  /** How its pages come to be there. */
  get kind(): RegionBacking["kind"] {
    return this.backing.kind;
  }

  /** Names it in reports; changes with every registration. */
  get index(): number {
    return KEY.index(this.key);
  }

  /** What its adapter is told; undefined for a software device. */
  get context(): RegionContext | undefined {
    const { list } = this.backing;
    if (!list) return undefined;
    const { key, domain, access, virt, length } = this;
    return { ...list, list: list.list as DmaAddr, key, domain: domain.number, access, virt, length };
  }
}
