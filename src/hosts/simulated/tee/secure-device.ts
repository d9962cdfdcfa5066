/**
 * A device that can prove who it is: security manager (DSM), mailbox, streams, and an interface for each of its functions.
 *
 * Idea: wraps functions that are plugged into a machine, and watches them: what is written to their configuration and what is
 * reset goes to the interface, what happens to a stream goes to all interfaces on it. The mailbox and the keys are function
 * 0's. The models of the devices know nothing of it.
 * Not for: rules of what may pass (gate.ts).
 */
import type { Random } from "../../../base/index.ts";
import { decodeKeyMessage, encodeKeyMessage } from "../../../layouts/ide/index.ts";
import { type Measurement, PROTOCOL } from "../../../layouts/spdm/index.ts";
import type { Clock, SecurityFunction } from "../../../platform/index.ts";
import type { SimulatedPciDevice } from "../device.ts";
import type { SimulatedPciNode } from "../pci.ts";
import type { Vendor } from "./certificates.ts";
import { DeviceInterface, type InterfaceRange, type LockedConfiguration } from "./device-interface.ts";
import { sha256, textBytes } from "./digest.ts";
import { IdeEnd, type IdeEndOptions } from "./ide-end.ts";
import type { IdealKeys, KeyPair } from "./keys.ts";
import { SimulatedMailbox } from "./mailbox.ts";
import { SpdmResponder } from "./spdm-responder.ts";
import { answerTdisp } from "./tdisp-responder.ts";

/** What a device is made of, besides its functions. */
export interface SecureDeviceOptions {
  /** Who signs the certificate of its key. */
  readonly vendor: Vendor;
  /** The machine's book of keys, in which its key pair is made. */
  readonly keys: IdealKeys;
  /** Its own stream of chance: keys and nonces. */
  readonly random: Random;
  /** Time of its mailbox. */
  readonly clock: Clock;
  /** What it runs. Default: a digest of its firmware, {@link firmwareDigest}. */
  readonly measurements?: readonly Measurement[];
  /** Parts of its BARs, for each function that does not take them as they are: whole, and part of the trusted interface. */
  readonly ranges?: (fn: SimulatedPciDevice) => readonly InterfaceRange[] | undefined;
  /** Its streams, where they differ from the defaults. */
  readonly ide?: Omit<IdeEndOptions, "requester" | "onInsecure">;
  /** Its functions can be trusted interfaces. Default true. */
  readonly hasTee?: boolean;
  /** One way through its mailbox, milliseconds. */
  readonly mailboxMs?: number;
}

/** The measurement of firmware that nobody changed, as a policy asks for it. */
export const firmwareDigest = (model: string): Uint8Array => sha256(textBytes(`firmware of ${model}`));

/** One function, and its interface. */
export class SecureFunction implements SecurityFunction {
  /** The device that it is of. */
  readonly device: SecureDevice;
  /** The function as its driver sees it. */
  readonly pci: SimulatedPciDevice;
  /** How far it is inside a guest's trust. */
  readonly interface: DeviceInterface;
  readonly parent: SecurityFunction | undefined;
  #msixTable = 0;
  #virtualFunctions = 0;

  /** Made with its device. */
  constructor(device: SecureDevice, pci: SimulatedPciDevice, random: Random, parent: SecurityFunction | undefined) {
    this.device = device;
    this.pci = pci;
    this.parent = parent;
    const { options } = device;
    const whole = pci.model.bars.map(({ index, length }) => ({ bar: index, offset: 0, length }));
    this.interface = new DeviceInterface(pci.requester, {
      random,
      configuration: () => this.#configuration(),
      isQuiet: () => pci.model.isQuiet?.() ?? true,
      isStreamSecure: (stream) => device.ide.isSecure(stream),
      isPeerStream: (stream) => device.ide.isSecure(stream) && stream !== this.interface.stream,
      scrub: () => (pci.model.scrub ? pci.model.scrub() : pci.model.reset()),
      ranges: options.ranges?.(pci) ?? whole,
    });
    pci.onConfigured = (what) => {
      if (what === "reset") this.interface.reset();
      else this.interface.configurationWritten();
    };
  }

  get name(): string {
    return this.pci.name;
  }

  get requester(): number {
    return this.pci.requester;
  }

  /** Its place in the machine's tree. */
  get node(): SimulatedPciNode {
    return this.pci.node;
  }

  get kind(): SecurityFunction["kind"] {
    return this.node.kind;
  }

  get hasTee(): boolean {
    return this.device.options.hasTee ?? true;
  }

  get hasIde(): boolean {
    return (this.requester & 7) === 0;
  }

  get ide(): IdeEnd | undefined {
    return this.hasIde ? this.device.ide : undefined;
  }

  get mailbox(): SimulatedMailbox | undefined {
    return this.hasIde ? this.device.mailbox : undefined;
  }

  get memory(): {
    /** First byte. */
    readonly start: number;
    /** The byte after the last. */
    readonly end: number;
  }[] {
    return this.node.bars.map(({ busAddress, length }) => ({ start: busAddress, end: busAddress + length }));
  }

  /** Software writes an entry of the MSI-X table. */
  writeMsixTable(): void {
    this.#msixTable++;
    this.interface.configurationWritten();
  }

  /** Software changes how many virtual functions there are. */
  enableVirtualFunctions(count: number): void {
    this.#virtualFunctions = count;
    this.interface.configurationWritten();
  }

  #configuration(): LockedConfiguration {
    const { node } = this;
    return {
      requester: node.requester,
      decodesMemory: node.decodesMemory,
      busMaster: node.busMaster,
      bars: [...node.bars],
      msixTable: this.#msixTable,
      virtualFunctions: this.#virtualFunctions,
    };
  }
}

/** A device in a slot. */
export class SecureDevice {
  /** As it was made. */
  readonly options: SecureDeviceOptions;
  /** One for each model, function 0 first. */
  readonly functions: readonly SecureFunction[];
  /** The device's end of its streams. */
  readonly ide: IdeEnd;
  /** Where managers leave messages for it. */
  readonly mailbox: SimulatedMailbox;
  /** What answers those messages. */
  readonly responder: SpdmResponder;
  /** Told when a stream is lost, after the interfaces on it. */
  onStreamLost: ((stream: number) => void) | undefined;
  /** Changes with its firmware: what it runs is measured when it is asked. */
  measurements: readonly Measurement[];

  /** Made by {@link TeeMachine.plug}, around functions that are plugged in already. */
  constructor(
    pci: readonly SimulatedPciDevice[],
    options: SecureDeviceOptions,
    parentOf: (node: SimulatedPciNode) => SecurityFunction | undefined,
  ) {
    this.options = options;
    const { keys, random, clock, vendor } = options;
    const first = pci[0]!;
    this.ide = new IdeEnd({
      ...options.ide,
      requester: first.requester,
      onInsecure: (stream) => {
        for (const { interface: each } of this.functions) each.streamLost(stream);
        this.onStreamLost?.(stream);
      },
    });
    const identity: KeyPair = keys.pair(random.fork("identity"));
    this.measurements = options.measurements ?? [
      { index: 1, measured: "mutableFirmware", value: firmwareDigest(vendor.name) },
    ];
    this.responder = new SpdmResponder({
      keys,
      identity,
      chain: vendor.chainFor({ subject: first.name, publicKey: identity.publicKey }),
      measurements: () => this.measurements,
      random: random.fork("session"),
      protocol: (protocol, message) => this.#protocol(protocol, message),
      isHeld: () => this.functions.some(({ interface: { state } }) => state === "configLocked" || state === "run"),
      onSessionEnd: () => this.#sessionEnded(),
    });
    this.mailbox = new SimulatedMailbox({
      name: first.name,
      clock,
      answer: (object) => this.responder.answer(object),
      isGone: () => first.removed,
      ...(options.mailboxMs !== undefined && { latencyMs: options.mailboxMs }),
    });
    this.functions = pci.map(
      (fn) => new SecureFunction(this, fn, random.fork(`interface ${fn.requester & 7}`), parentOf(fn.node)),
    );
    first.onRemoved(() => {
      this.responder.reset();
      this.ide.forgetKeys();
    });
  }

  /** The function that manages the others. */
  get manager(): SecureFunction {
    return this.functions[0]!;
  }

  /** The function with this requester id; undefined if it is not of this device. */
  function(requester: number): SecureFunction | undefined {
    return this.functions.find((fn) => fn.requester === requester);
  }

  #protocol(protocol: number, message: Uint8Array): Uint8Array | undefined {
    if (protocol === PROTOCOL.tdisp)
      return answerTdisp(
        this.functions.map((fn) => fn.interface),
        message,
      );
    if (protocol !== PROTOCOL.ideKeys) return undefined;
    const keyMessage = decodeKeyMessage(message);
    const answer = keyMessage && this.ide.keyMessage(keyMessage);
    return answer && encodeKeyMessage(answer);
  }

  /** Keys and locks belong to the session that they came in. */
  #sessionEnded(): void {
    for (const { interface: each } of this.functions) each.fail("session ended");
    this.ide.forgetKeys();
  }
}
