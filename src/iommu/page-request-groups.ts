/**
 * Groups of page requests: gathered until they are whole, handed to whoever can make the pages reachable, answered once.
 *
 * Idea: a unit reads requests in its own format and gives them here; what is the same for every unit is here: groups by
 * device and number, handlers by device and PASID, and that each group that ended is answered exactly once, whoever answers
 * it. What nobody can handle is answered at once, so that no device waits for ever.
 * Promises: nothing throws for what a device sends; after {@link PageRequestGroups.drop} nothing of that device and PASID
 * is answered late.
 * Specified by: PCIe 6.0, 10.4; behaviour of Linux 7.2 (I/O page faults).
 */
import type { PageRequest, PageRequestGroup, PageRequestHandler, PageResponseCode } from "../platform/index.ts";

/** Sends an answer to the device. */
type Answer = (requester: number, pasid: number | undefined, index: number, code: PageResponseCode) => void;

const keyOf = (requester: number, pasid: number | undefined): number => requester * 2 ** 21 + (pasid ?? -1) + 1;

/** The groups of one unit. */
export class PageRequestGroups {
  readonly #answer: Answer;
  readonly #handlers = new Map<number, PageRequestHandler>();
  /** By device: requests whose group has not ended. */
  readonly #partial = new Map<number, { readonly index: number; readonly request: PageRequest }[]>();
  /** Groups that a handler has and did not answer yet. */
  readonly #open = new Set<PageRequestGroup>();

  constructor(answer: Answer) {
    this.#answer = answer;
  }

  /** Requests that wait for the last one of their group. */
  get partial(): number {
    let count = 0;
    for (const requests of this.#partial.values()) count += requests.length;
    return count;
  }

  /** From now on `handler` gets the groups of this device and PASID; undefined: nobody does. */
  setHandler(requester: number, pasid: number | undefined, handler: PageRequestHandler | undefined): void {
    const key = keyOf(requester, pasid);
    if (handler) this.#handlers.set(key, handler);
    else this.#handlers.delete(key);
  }

  /** A well-formed request; with the `last` of a group its handler gets it. */
  take(request: PageRequest, index: number, last: boolean): void {
    const { requester } = request;
    const parked = this.#partial.get(requester) ?? [];
    if (!last) {
      parked.push({ index, request });
      this.#partial.set(requester, parked);
      return;
    }
    const earlier = parked.filter((other) => other.index === index);
    if (earlier.length > 0)
      this.#partial.set(
        requester,
        parked.filter((other) => other.index !== index),
      );
    this.#handOver([...earlier.map((other) => other.request), request], index);
  }

  /** Requests were lost: which groups they were part of is not known, so none that is not whole will end. */
  forgetPartial(): void {
    this.#partial.clear();
  }

  /** The device was detached from this PASID: what waits is forgotten, what a handler has is answered. */
  drop(requester: number, pasid: number | undefined): void {
    const waiting = this.#partial.get(requester)?.filter(({ request }) => request.pasid !== pasid);
    if (waiting) this.#partial.set(requester, waiting);
    for (const group of this.#open)
      if (group.requester === requester && group.pasid === pasid) group.respond("invalid");
  }

  /** The end of the unit: whoever still waits is answered. */
  destroy(): void {
    for (const group of this.#open) group.respond("invalid");
  }

  /** A group is whole. */
  #handOver(requests: readonly PageRequest[], index: number): void {
    const { requester, pasid } = requests[0]!;
    const handler = this.#handlers.get(keyOf(requester, pasid));
    if (!handler) {
      this.#answer(requester, pasid, index, "invalid");
      return;
    }
    const group: PageRequestGroup = {
      requester,
      pasid,
      index,
      requests,
      respond: (code) => {
        if (this.#open.delete(group)) this.#answer(requester, pasid, index, code);
      },
    };
    this.#open.add(group);
    try {
      handler(group);
    } catch (error) {
      group.respond("failure"); // the device must not wait for a handler that is gone
      throw error;
    }
  }
}
