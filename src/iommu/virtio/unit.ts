/**
 * The driver of a virtio-iommu: attaches endpoints to domains, sends requests, and reads fault reports.
 *
 * Idea: requests wait until somebody needs their answers, and go to the device together: telling it is what costs (in a
 * virtual machine an exit to the host), not the request.
 * Promises: requests reach the device in the order in which they were made. Never throws but from {@link VirtioIommuUnit.attach}.
 * Specified by: Virtual I/O Device (VIRTIO) version 1.3, 5.13; behaviour of Linux 7.2 (drivers/iommu/virtio-iommu.c).
 */
import type { IovaPage } from "../../base/index.ts";
import {
  decodeFault,
  encodeRequest,
  FAULT_REASON,
  STATUS,
  statusOf,
  type VirtioIommuRequest,
} from "../../layouts/virtio-iommu/index.ts";
import type { Requester, VirtioIommuConfig, VirtioIommuQueues } from "../../platform/index.ts";
import { FaultEvents } from "../fault-events.ts";
import { attachRefused, meaningOf } from "./errors.ts";
import type { Mapping } from "./mappings.ts";

/** What went wrong, for whoever looks. */
export type VirtioIommuFault =
  | {
      /** An access of a device was refused. */
      readonly kind: "translation";
      /** The endpoint: segment × 65536 + bus × 256 + device × 8 + function. */
      readonly requester: Requester;
      /** The page that it asked for. */
      readonly page: IovaPage;
      /** What it wanted to do there. */
      readonly access: "read" | "write";
      /** Its endpoint has no domain; nothing is mapped there for this access; or the device does not say. */
      readonly reason: "domain" | "mapping" | "unknown";
    }
  | {
      /** The device refused a request that nobody waits for an error of: what it was to forget it may still know. */
      readonly kind: "request-refused";
      /** What was asked. */
      readonly request: VirtioIommuRequest;
      /** What its status says, in a sentence. */
      readonly meaning: string;
    }
  | {
      /** The device had no room for reports: how many more were lost. */
      readonly kind: "reports-lost";
      /** Reports that were lost since the last such event. */
      readonly count: number;
    };

/** What the unit asks of a domain. */
export interface AttachedDomain {
  /** What the device knows it by. */
  readonly domainId: number;
  /** The first endpoint is attached: from now on the device is told of mappings. */
  endpointsCame(): void;
  /** The last one is gone: the device has forgotten all mappings. */
  endpointsLeft(): void;
}

interface Waiting {
  readonly request: VirtioIommuRequest;
  /** Of a map: gets the answer. */
  readonly mapping: Mapping | undefined;
}

/** Requests that are collected before the device is told, if nobody tells it sooner. */
const BATCH = 256;

const REASONS: Readonly<Record<number, "domain" | "mapping">> = {
  [FAULT_REASON.domain]: "domain",
  [FAULT_REASON.mapping]: "mapping",
};

/** See the head of the file. */
export class VirtioIommuUnit {
  /** What the device says of itself. */
  readonly config: VirtioIommuConfig;
  /** Of devices and of the unit itself. {@link VirtioIommuUnit.readFaults} fills it with what devices did. */
  readonly faults: FaultEvents<VirtioIommuFault> = new FaultEvents();
  /** Requests sent, and how often the device was told. */
  readonly counts: {
    /** Requests sent. */
    requests: number;
    /** Times that the device was told of requests: each is an exit in a virtual machine. */
    submissions: number;
  } = { requests: 0, submissions: 0 };
  readonly #queues: VirtioIommuQueues;
  readonly #attached = new Map<Requester, AttachedDomain>();
  #waiting: Waiting[] = [];
  #lost = 0;

  /** Reads what the device says of itself; attaches nothing. */
  constructor(queues: VirtioIommuQueues) {
    this.#queues = queues;
    this.config = queues.config;
  }

  /**
   * From now on requests of `requester` are translated by `domain`; by no other any more.
   *
   * @throws DmaError ERR_DMA_VIRTIO_ATTACH; it is attached as before then
   */
  attach(requester: Requester, domain: AttachedDomain): void {
    this.flush();
    const { domainId } = domain;
    const status = this.#send({ type: "attach", domain: domainId, endpoint: requester });
    if (status !== STATUS.ok) throw attachRefused(requester, domainId, status);
    const before = this.#attached.get(requester);
    if (before === domain) return;
    const isFirst = !this.#hasEndpoints(domain);
    this.#attached.set(requester, domain);
    if (before && !this.#hasEndpoints(before)) before.endpointsLeft();
    if (!isFirst) return;
    domain.endpointsCame();
    this.flush();
  }

  /** From now on requests of `requester` are refused, or pass untranslated where the machine is set up so. Cannot fail. */
  detach(requester: Requester): void {
    const domain = this.#attached.get(requester);
    if (!domain) return;
    this.flush();
    const request: VirtioIommuRequest = { type: "detach", domain: domain.domainId, endpoint: requester };
    const status = this.#send(request);
    if (status !== STATUS.ok) this.#refused(request, status);
    this.#attached.delete(requester);
    if (!this.#hasEndpoints(domain)) domain.endpointsLeft();
  }

  /** A request for later; of a map the answer goes into `mapping`. */
  add(request: VirtioIommuRequest, mapping?: Mapping): void {
    this.#waiting.push({ request, mapping });
    if (this.#waiting.length >= BATCH) this.flush();
  }

  /** Sends what waits: the device has done it when this returns. */
  flush(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    const requests = waiting.map(({ request }) => encodeRequest(request));
    this.#submit(requests);
    waiting.forEach(({ request, mapping }, i) => {
      const status = statusOf(requests[i]!);
      if (mapping) mapping.status = status;
      else if (status !== STATUS.ok) this.#refused(request, status);
    });
  }

  /** Turns the device's reports into events of {@link faults}: how many. At its interrupt, or at any time. */
  readFaults(): number {
    const reports = this.#queues.takeFaults().flatMap((bytes) => decodeFault(bytes) ?? []);
    for (const { reason, access, endpoint, address } of reports)
      this.faults.push({
        kind: "translation",
        requester: endpoint,
        page: Math.floor(address / 4096) as IovaPage,
        access,
        reason: REASONS[reason] ?? "unknown",
      });
    const lost = this.#queues.faultsLost - this.#lost;
    this.#lost += lost;
    if (lost > 0) this.faults.push({ kind: "reports-lost", count: lost });
    return reports.length;
  }

  #hasEndpoints(domain: AttachedDomain): boolean {
    for (const each of this.#attached.values()) if (each === domain) return true;
    return false;
  }

  #send(request: VirtioIommuRequest): number {
    const bytes = encodeRequest(request);
    this.#submit([bytes]);
    return statusOf(bytes);
  }

  #submit(requests: readonly Uint8Array[]): void {
    this.counts.requests += requests.length;
    this.counts.submissions++;
    this.#queues.submit(requests);
  }

  #refused(request: VirtioIommuRequest, status: number): void {
    this.faults.push({ kind: "request-refused", request, meaning: meaningOf(status)[1] });
  }
}
