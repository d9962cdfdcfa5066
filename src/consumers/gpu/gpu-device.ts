/**
 * A GPU's driver: address spaces, the answers to page faults, and work.
 *
 * Idea: the GPU asks by a queue, and whoever runs the driver answers: at once in {@link GpuDevice.run}, or in steps between those of everything else.
 * Promises: a device whose mappings may be copies is refused, since the process and the GPU use the same pages at the same time. A page that cannot be
 * had ends the work that needs it, and nothing else.
 * Specified by: behaviour of Linux 7.2 GPU drivers with drm_gpusvm; refusing copies is this project's.
 */
import { DmaError } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import {
  finish,
  type GpuAdapter,
  type GpuWork,
  type GpuWorkResult,
  type Steps,
  type UserMemory,
  WAITING,
} from "../../platform/index.ts";
import { badWindow, deviceCopies } from "./errors.ts";
import { GpuSpace } from "./gpu-space.ts";

/** A GPU, and its way to memory. */
export interface GpuDeviceOptions {
  readonly adapter: GpuAdapter;
  readonly dma: Dma;
}

/** Address spaces that one GPU has, at most. */
const MOST_SPACES = 65_535;

/** A GPU as programs use it. */
export class GpuDevice implements Disposable {
  readonly adapter: GpuAdapter;
  readonly dma: Dma;
  /** Why page faults could not be answered with pages: by error code. */
  readonly refusals: Map<string, number> = new Map();
  readonly #spaces = new Map<number, GpuSpace>();
  #lastSpace = 0;

  /** @throws DmaError ERR_DMA_GPU_DEVICE (EOPNOTSUPP) if mappings of the device may need syncs or copies */
  constructor({ adapter, dma }: GpuDeviceOptions) {
    const mayBounce = dma.domain === undefined && dma.maxMappingSize < Number.POSITIVE_INFINITY;
    if (dma.needsSync || dma.addressingLimited || mayBounce) throw deviceCopies(dma.device.name);
    this.adapter = adapter;
    this.dma = dma;
  }

  /**
   * An address space for a process.
   *
   * @param faulting pages that are absent are asked for; true unless said
   * @throws DmaError ERR_DMA_GPU_RANGE (EINVAL): there are as many as there can be
   */
  openSpace(memory: UserMemory, { faulting = true }: { readonly faulting?: boolean } = {}): GpuSpace {
    if (this.#spaces.size >= MOST_SPACES) throw badWindow("address space", MOST_SPACES + 1);
    do this.#lastSpace = (this.#lastSpace % MOST_SPACES) + 1;
    while (this.#spaces.has(this.#lastSpace));
    const number = this.#lastSpace;
    const onClose = (): void => void this.#spaces.delete(number);
    const space = new GpuSpace(this.adapter, this.dma, memory, { number, faulting, onClose });
    this.#spaces.set(number, space);
    return space;
  }

  /** Answers the page faults that stand in the queue. How many. */
  *serveSteps(): Steps<number> {
    let served = 0;
    for (let fault = this.adapter.takeFault(); fault; fault = this.adapter.takeFault()) {
      served++;
      let isThere = false;
      try {
        const space = this.#spaces.get(fault.space);
        if (space) {
          yield* space.faultSteps(fault.address, fault.write);
          isThere = true;
        }
      } catch (error) {
        if (!(error instanceof DmaError)) throw error;
        this.refusals.set(error.code, (this.refusals.get(error.code) ?? 0) + 1);
      } finally {
        this.adapter.resume(fault.id, isThere);
      }
    }
    return served;
  }

  /** Has the GPU work, and answers its page faults, until the work has ended. @throws DmaError ERR_DMA_WOULD_WAIT (EAGAIN) if it waits for somebody else */
  run(space: GpuSpace, work: GpuWork): GpuWorkResult {
    const steps = space.executeSteps(work);
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      if (value === WAITING && finish(this.serveSteps()) === 0) {
        steps.return(undefined as never);
        throw new DmaError(
          "ERR_DMA_WOULD_WAIT",
          "EAGAIN",
          "the GPU waits for work of others: let a scheduler run both",
        );
      }
    }
  }

  /** All address spaces are closed. */
  close(): void {
    for (const space of [...this.#spaces.values()]) space.close();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
