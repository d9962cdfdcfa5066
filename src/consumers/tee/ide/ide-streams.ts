/**
 * IDE streams of a host: from which pools one is made, and in which order.
 *
 * Idea: a stream takes one of the host bridge's, one block of the root port and one of the endpoint, and an id that is unique
 * below the bridge. Each step is made once and in order: allocate, set up both ports, (keys, by the security manager), enable,
 * register. Release takes them back in reverse from wherever the stream is.
 * Promises: a failed step leaves the stream as it was; release cannot fail.
 * Trap: secure when it was enabled says nothing later: {@link IdeStream.isSecure} asks.
 * Specified by: behaviour of Linux 7.2 IDE streams.
 */
import {
  type AddressRange,
  PLACEHOLDER_STREAM,
  type RequesterRange,
  type SelectiveControl,
  wholeMebibytes,
} from "../../../layouts/ide/index.ts";
import { badStreamId, noIde, noStreamLeft, streamIdInUse, streamNotSecure, streamOrder } from "../errors.ts";
import type { IdePort } from "./ide-port.ts";

/** Streams of a host bridge, unless its firmware says otherwise. */
export const BRIDGE_STREAMS = 256;
/** Address ranges of an endpoint at its root port: memory below and above 4 GiB. */
const MAX_RANGES = 2;

/** The streams below one host bridge. */
export class IdeBridge {
  /** For messages. */
  readonly name: string;
  /** Streams that it can carry at once. */
  readonly streams: number;
  readonly #used = new Set<number>();
  readonly #ids = new Set<number>([PLACEHOLDER_STREAM]);
  readonly #registered = new Map<string, IdeStream>();

  /** Nothing is in use yet: {@link adopt} its ports, for what firmware made. */
  constructor(name: string, streams: number = BRIDGE_STREAMS) {
    this.name = name;
    this.streams = streams;
  }

  /** Ids of streams that a port has from its firmware are taken. */
  adopt(port: IdePort): void {
    for (const id of port.idsInUse) this.#ids.add(id);
  }

  /** Streams in use. */
  get inUse(): number {
    return this.#used.size;
  }

  /** Streams by name. */
  get registered(): ReadonlyMap<string, IdeStream> {
    return this.#registered;
  }

  /**
   * Takes a stream from the pools of the bridge and of both ports. Nothing is on it yet.
   *
   * @throws DmaError ERR_DMA_IDE_UNSUPPORTED (EOPNOTSUPP), ERR_DMA_IDE_FULL (ENOSPC)
   */
  allocate(endpoint: IdePort, rootPort: IdePort): IdeStream {
    for (const port of [endpoint, rootPort]) if (!port.capability.selective) throw noIde(port.name);
    let bridgeIndex = 0;
    while (this.#used.has(bridgeIndex)) bridgeIndex++;
    if (bridgeIndex >= this.streams) throw noStreamLeft(this.name, this.streams);
    const rootIndex = rootPort.take();
    if (rootIndex < 0) throw noStreamLeft(rootPort.name, rootPort.streams);
    const endpointIndex = endpoint.take();
    if (endpointIndex < 0) {
      rootPort.give(rootIndex);
      throw noStreamLeft(endpoint.name, endpoint.streams);
    }
    this.#used.add(bridgeIndex);
    return new IdeStream(
      this,
      { port: endpoint, index: endpointIndex },
      { port: rootPort, index: rootIndex },
      bridgeIndex,
    );
  }

  /** Some stream has this id, or none may. */
  hasId(id: number): boolean {
    return this.#ids.has(id);
  }

  /** For {@link IdeStream}. @throws DmaError ERR_DMA_IDE_ID (ENXIO; EBUSY if it is in use or reserved) */
  takeId(id: number): void {
    if (!(Number.isInteger(id) && id >= 0 && id <= 255)) throw badStreamId(id);
    if (this.#ids.has(id)) throw streamIdInUse(id);
    this.#ids.add(id);
  }

  /** For {@link IdeStream}. */
  giveId(id: number): void {
    this.#ids.delete(id);
  }

  /** For {@link IdeStream}. */
  setRegistered(stream: IdeStream, isRegistered: boolean): void {
    if (isRegistered) this.#registered.set(stream.name, stream);
    else this.#registered.delete(stream.name);
  }

  /** For {@link IdeStream}. */
  giveBack(bridgeIndex: number): void {
    this.#used.delete(bridgeIndex);
  }
}

/** How far a stream is. */
export type StreamStep = "allocated" | "set up" | "enabled" | "registered" | "released";

interface End {
  /** Which port. */
  readonly port: IdePort;
  /** Which of the port's register blocks. */
  readonly index: number;
}

/** What is on a stream. */
export interface StreamSetup {
  /** 0 to 255, unique below the bridge. */
  readonly id: number;
  /** The endpoint's functions. Its own requester alone, unless said. */
  readonly requesters?: RequesterRange;
  /** Where the endpoint's memory is: at most two ranges, made larger to whole MiB. */
  readonly addresses?: readonly AddressRange[];
  /** Only requests with the T bit are on it; where both ports can do that. */
  readonly teeLimited?: boolean;
  /** It is between two devices, for their requests to each other only: nothing goes on it by default. Default false. */
  readonly isPeer?: boolean;
}

/** One selective stream, from its pools to its name. */
export class IdeStream implements Disposable {
  /** The stream at the device. */
  readonly endpoint: End;
  /** The stream at the root port. */
  readonly rootPort: End;
  /** `stream`, and the indices at the bridge, the root port and the endpoint. */
  readonly name: string;
  readonly #bridge: IdeBridge;
  readonly #bridgeIndex: number;
  #step: StreamStep = "allocated";
  #control: SelectiveControl | undefined;

  /** Made by {@link IdeBridge.allocate}. */
  constructor(bridge: IdeBridge, endpoint: End, rootPort: End, bridgeIndex: number) {
    this.#bridge = bridge;
    this.endpoint = endpoint;
    this.rootPort = rootPort;
    this.#bridgeIndex = bridgeIndex;
    this.name = `stream${bridgeIndex}.${rootPort.index}.${endpoint.index}`;
  }

  /** How far it is. */
  get step(): StreamStep {
    return this.#step;
  }

  /** Undefined before {@link setUp}. */
  get id(): number | undefined {
    return this.#control?.id;
  }

  /**
   * Says to both ports what is on the stream. The endpoint sends by default on it, unless it is for peers.
   *
   * @throws DmaError ERR_DMA_IDE_ID (ENXIO, EBUSY), ERR_DMA_IDE_ORDER (EINVAL)
   */
  setUp(setup: StreamSetup): void {
    this.#expect("allocated", "set up");
    const { id, addresses = [], teeLimited = false, isPeer = false } = setup;
    this.#bridge.takeId(id);
    const [endpoint, root] = [this.endpoint.port, this.rootPort.port];
    const control: SelectiveControl = {
      enabled: false,
      configurationRequests: endpoint.capability.configurationRequests && root.capability.configurationRequests,
      trafficClass: 0,
      isDefault: !isPeer,
      teeLimited: teeLimited && endpoint.capability.teeLimited && root.capability.teeLimited,
      id,
    };
    this.#control = control;
    const whole = addresses.slice(0, MAX_RANGES).map(wholeMebibytes);
    const requesters = setup.requesters ?? alone(endpoint.requester);
    root.associate(this.rootPort.index, { requesters, addresses: whole }, { ...control, isDefault: false });
    endpoint.associate(this.endpoint.index, { requesters: alone(root.requester), addresses: [] }, control);
    this.#step = "set up";
  }

  /**
   * Turns both ends on: the root port first, so that nothing the endpoint sends finds it off.
   *
   * @throws DmaError ERR_DMA_IDE_INSECURE (ENXIO) if a port does not call it secure, and it is off again then:
   *   has it its keys? ERR_DMA_IDE_ORDER (EINVAL)
   */
  enable(): void {
    this.#expect("set up", "enable");
    const control = this.#control!;
    for (const [i, { port, index }] of this.#ends.entries()) {
      if (port.enable(index, this.#controlOf(i))) continue;
      for (let back = i; back >= 0; back--)
        this.#ends[back]!.port.disable(this.#ends[back]!.index, this.#controlOf(back));
      throw streamNotSecure(this.name, port.name, control.id);
    }
    this.#step = "enabled";
  }

  /** The stream has its name: it can be seen. @throws DmaError ERR_DMA_IDE_ORDER (EINVAL) */
  register(): void {
    this.#expect("enabled", "register");
    this.#bridge.setRegistered(this, true);
    this.#step = "registered";
  }

  /** Both ports say that it is secure, now. */
  get isSecure(): boolean {
    return this.#ends.every(({ port, index }) => port.isSecure(index));
  }

  /** Takes everything back, in reverse. Cannot fail; a second time does nothing. */
  release(): void {
    if (this.#step === "released") return;
    const ends = [...this.#ends.entries()].reverse();
    if (this.#step === "registered") this.#bridge.setRegistered(this, false);
    if (this.#step === "registered" || this.#step === "enabled")
      for (const [i, { port, index }] of ends) port.disable(index, this.#controlOf(i));
    if (this.#control) {
      for (const [, { port, index }] of ends) port.clear(index);
      this.#bridge.giveId(this.#control.id);
    }
    this.endpoint.port.give(this.endpoint.index);
    this.rootPort.port.give(this.rootPort.index);
    this.#bridge.giveBack(this.#bridgeIndex);
    this.#step = "released";
  }

  /** As `release`, for `using`. */
  [Symbol.dispose](): void {
    this.release();
  }

  get #ends(): readonly [End, End] {
    return [this.rootPort, this.endpoint];
  }

  #controlOf(end: number): SelectiveControl {
    const control = this.#control!;
    return { ...control, isDefault: control.isDefault && end === 1 };
  }

  #expect(step: StreamStep, what: string): void {
    if (this.#step !== step) throw streamOrder(this.name, what, this.#step, step);
  }
}

const alone = (requester: number): RequesterRange => ({
  base: requester & 0xffff,
  limit: requester & 0xffff,
  segment: Math.floor(requester / 65_536),
});
