/**
 * The manager's end of SPDM: learns who a device is, begins a session with it, and talks to it there.
 *
 * Idea: the certificate chain must be signed down to the device's key, and that key must sign the exchange that the session's
 * keys come from: so what is said in the session is said by that device. Whether the chain's root is one to believe is the
 * guest's to judge.
 * Promises: what comes back was said by the device, in this session, in answer to this; anything else is an error.
 */
import type { Random } from "../../../base/index.ts";
import {
  ALL_MEASUREMENTS,
  decodeDiscovered,
  decodeMeasurements,
  decodeObject,
  decodeSpdmResponse,
  encodeDiscovery,
  encodeObject,
  encodeSpdmRequest,
  type Measurement,
  OBJECT_TYPE,
  PCI_SIG,
  type SpdmRequest,
  type SpdmResponse,
} from "../../../layouts/spdm/index.ts";
import type { Mailbox } from "../../../platform/index.ts";
import { leafOf } from "./certificates.ts";
import { sameBytes, sha256 } from "./digest.ts";
import { badIdentity, noSession, sessionRefused } from "./errors.ts";
import { type IdealKeys, randomBytes } from "./keys.ts";
import { SessionEnd, verifyData } from "./session.ts";
import { exchangeTranscript, measurementTranscript } from "./spdm-responder.ts";

/** Bytes of a chain that are asked for at once. */
const PORTION_BYTES = 256;

/** Measurements as a device signed them. */
interface SignedMeasurements {
  readonly record: Uint8Array;
  readonly blocks: readonly Measurement[];
}

/** A session with a device. */
export class SpdmRequester {
  /** Its certificate chain. */
  readonly chain: Uint8Array;
  /** Whom that chain certifies. */
  readonly subject: string;
  readonly #name: string;
  readonly #mailbox: Mailbox;
  readonly #keys: IdealKeys;
  readonly #deviceKey: Uint8Array;
  readonly #session: SessionEnd;
  #open = true;
  /** Settles when the last request was answered. */
  #last: Promise<unknown> = Promise.resolve();

  /** Made by {@link SpdmRequester.connect}. */
  private constructor(made: {
    readonly name: string;
    readonly mailbox: Mailbox;
    readonly keys: IdealKeys;
    readonly chain: Uint8Array;
    readonly subject: string;
    readonly deviceKey: Uint8Array;
    readonly session: SessionEnd;
  }) {
    this.#name = made.name;
    this.#mailbox = made.mailbox;
    this.#keys = made.keys;
    this.chain = made.chain;
    this.subject = made.subject;
    this.#deviceKey = made.deviceKey;
    this.#session = made.session;
  }

  /**
   * Learns who a device is, and begins a session with it.
   *
   * @throws DmaError ERR_DMA_SIM_TEE_IDENTITY (EACCES) if the chain is not good, or its key did not sign;
   *   ERR_DMA_SIM_TEE_SESSION (EIO) if the device refuses; those of the mailbox
   */
  static async connect(name: string, mailbox: Mailbox, keys: IdealKeys, random: Random): Promise<SpdmRequester> {
    const ask = (request: SpdmRequest): Promise<SpdmResponse> => inTheClear(name, mailbox, request);
    await discover(name, mailbox);
    const digests = await ask({ type: "getDigests" });
    const chain = await readChain(name, ask);
    if (digests.type !== "getDigests" || !sameBytes(digests.digests[0] ?? chain, sha256(chain)))
      throw badIdentity(name, "its certificate chain is not the one whose digest it gave");
    const leaf = leafOf(keys, chain);
    if (!leaf) throw badIdentity(name, "its certificate chain is not signed all the way down");
    const own = keys.pair(random);
    const request: SpdmRequest = {
      type: "keyExchange",
      slot: 0,
      sessionId: random.below(65_536),
      random: randomBytes(random, 32),
      exchange: own.publicKey,
    };
    const answer = await ask(request);
    if (answer.type !== "keyExchange") throw sessionRefused(name, answer.type === "error" ? answer.error : answer.type);
    const transcript = exchangeTranscript(chain, encodeSpdmRequest(request), answer.random, answer.exchange);
    const shared = keys.agree(own, answer.exchange);
    if (!shared || !keys.verify(leaf.publicKey, transcript, answer.signature))
      throw badIdentity(name, "the key in its certificate did not sign the exchange");
    const secret = { id: answer.sessionId * 65_536 + request.sessionId, shared, transcript };
    if (!sameBytes(answer.verify, verifyData(secret, "responder")))
      throw badIdentity(name, "it does not have the keys of the session");
    const session = new SessionEnd(secret, "requester");
    const { publicKey: deviceKey, subject } = leaf;
    const requester = new SpdmRequester({ name, mailbox, keys, chain, subject, deviceKey, session });
    const finished = await requester.#ask({ type: "finish", verify: verifyData(secret, "requester") });
    if (finished.type !== "finish") throw sessionRefused(name, finished.type);
    return requester;
  }

  /**
   * Sends a message of one of the protocols to the device. The answer.
   *
   * @throws DmaError ERR_DMA_SIM_TEE_SESSION (EIO) if it is no answer of the device in this session; those of the mailbox
   */
  async send(protocol: number, message: Uint8Array): Promise<Uint8Array> {
    const answer = await this.#ask({ type: "vendorDefined", protocol, message });
    if (answer.type !== "vendorDefined" || answer.protocol !== protocol)
      throw sessionRefused(this.#name, answer.type === "error" ? answer.error : answer.type);
    return answer.message;
  }

  /**
   * What the device runs now, signed over `nonce`: an old answer does not pass for a new one.
   *
   * @throws DmaError ERR_DMA_SIM_TEE_IDENTITY (EACCES) if the signature is not the device's over this nonce
   */
  async measure(nonce: Uint8Array): Promise<SignedMeasurements> {
    const request: SpdmRequest = { type: "getMeasurements", which: ALL_MEASUREMENTS, slot: 0, nonce };
    const answer = await this.#ask(request, true);
    if (answer.type !== "getMeasurements" || !answer.signature)
      throw sessionRefused(this.#name, answer.type === "error" ? answer.error : answer.type);
    const blocks = decodeMeasurements(answer.record);
    const transcript = measurementTranscript(encodeSpdmRequest(request), answer);
    if (!blocks || !this.#keys.verify(this.#deviceKey, transcript, answer.signature))
      throw badIdentity(this.#name, "its measurements are not signed by its key over this nonce");
    return { record: answer.record, blocks };
  }

  /** The end of the session. Cannot fail: a device that does not answer has none any more. */
  async end(): Promise<void> {
    if (!this.#open) return;
    await this.#ask({ type: "endSession" }).catch(() => {});
    this.#open = false;
  }

  /** One at a time: both ends count what they say. */
  #ask(request: SpdmRequest, signed = false): Promise<SpdmResponse> {
    const answer = this.#last.then(() => this.#exchange(request, signed));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #exchange(request: SpdmRequest, signed: boolean): Promise<SpdmResponse> {
    if (!this.#open) throw noSession(this.#name);
    // What is lost on the way cannot be said again: the two ends would not count alike any more.
    this.#open = false;
    const payload = this.#session.seal(encodeSpdmRequest(request));
    const answer = decodeObject(
      await this.#mailbox.exchange(encodeObject({ vendor: PCI_SIG, type: OBJECT_TYPE.securedSpdm, payload })),
    );
    const message = answer?.type === OBJECT_TYPE.securedSpdm ? this.#session.open(answer.payload) : undefined;
    const response = message && decodeSpdmResponse(message, { signed });
    if (!response) throw sessionRefused(this.#name, "what is not of this session");
    this.#open = true;
    return response;
  }
}

/** The mailbox must take messages in the clear and of sessions. A list that does not end is none. */
async function discover(name: string, mailbox: Mailbox): Promise<void> {
  const types = new Set<number>();
  for (let index = 0, asked = 0; asked < 256; asked++) {
    const payload = encodeDiscovery(index);
    const object = encodeObject({ vendor: PCI_SIG, type: OBJECT_TYPE.discovery, payload });
    const answer = decodeObject(await mailbox.exchange(object));
    const found = answer?.type === OBJECT_TYPE.discovery ? decodeDiscovered(answer.payload) : undefined;
    if (!found) throw sessionRefused(name, "a discovery that is none");
    if (found.vendor === PCI_SIG) types.add(found.type);
    if (found.next === 0) break;
    index = found.next;
  }
  if (!types.has(OBJECT_TYPE.spdm) || !types.has(OBJECT_TYPE.securedSpdm))
    throw sessionRefused(name, "that its mailbox takes no sessions");
}

async function inTheClear(name: string, mailbox: Mailbox, request: SpdmRequest): Promise<SpdmResponse> {
  const payload = encodeSpdmRequest(request);
  const answer = decodeObject(
    await mailbox.exchange(encodeObject({ vendor: PCI_SIG, type: OBJECT_TYPE.spdm, payload })),
  );
  const response = answer?.type === OBJECT_TYPE.spdm ? decodeSpdmResponse(answer.payload) : undefined;
  if (!response) throw sessionRefused(name, "an answer that is none");
  return response;
}

async function readChain(name: string, ask: (request: SpdmRequest) => Promise<SpdmResponse>): Promise<Uint8Array> {
  const chain: number[] = [];
  for (;;) {
    const part = await ask({ type: "getCertificate", slot: 0, offset: chain.length, length: PORTION_BYTES });
    if (part.type !== "getCertificate" || part.portion.length === 0)
      throw badIdentity(name, "it gives no certificate chain");
    chain.push(...part.portion);
    if (part.remainder === 0) return Uint8Array.from(chain);
    if (chain.length > 65_535) throw badIdentity(name, "its certificate chain does not end");
  }
}
