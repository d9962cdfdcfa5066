/**
 * The device's end of SPDM: who it is, what it runs, and one session with whoever manages it.
 *
 * Idea: the mailbox's objects come from the host, so nothing in the clear changes anything. One session at a time; inside it
 * travel the protocols that matter, each to its own part of the device. While something depends on the session, nobody else can
 * begin another.
 * Promises: an answer for every object that a mailbox can carry; a record that does not open changes nothing.
 * Specified by: DMTF DSP0274 1.2, in what layouts/spdm has of it; PCI Express base specification 6.1, 6.30 and 6.31.
 */
import type { Random } from "../../../base/index.ts";
import {
  ALL_MEASUREMENTS,
  decodeObject,
  decodeSpdmRequest,
  encodeDiscovered,
  encodeMeasurements,
  encodeObject,
  encodeSpdmRequest,
  encodeSpdmResponse,
  joined,
  type Measurement,
  OBJECT_TYPE,
  PCI_SIG,
  type SpdmErrorName,
  type SpdmRequest,
  type SpdmResponse,
} from "../../../layouts/spdm/index.ts";
import { sameBytes, sha256 } from "./digest.ts";
import { type IdealKeys, type KeyPair, randomBytes } from "./keys.ts";
import { SessionEnd, type SessionSecret, verifyData } from "./session.ts";

interface SpdmResponderOptions {
  readonly keys: IdealKeys;
  readonly identity: KeyPair;
  /** The certificate chain in slot 0. */
  readonly chain: Uint8Array;
  /** As the device measures itself now. */
  readonly measurements: () => readonly Measurement[];
  readonly random: Random;
  /** A message of one of the protocols inside the session; undefined: no answer. */
  readonly protocol: (protocol: number, message: Uint8Array) => Uint8Array | undefined;
  /** Something depends on the session: a function is locked. */
  readonly isHeld: () => boolean;
  /** The session is over: nothing that was built on it holds. */
  readonly onSessionEnd: () => void;
}

/** What a signature over measurements is over: what was asked, and what is answered, without the signature itself. */
export const measurementTranscript = (
  request: Uint8Array,
  response: SpdmResponse & { type: "getMeasurements" },
): Uint8Array => {
  const { type, blocks, record, nonce } = response;
  return sha256(request, encodeSpdmResponse({ type, blocks, record, nonce }));
};

/** What a key exchange is signed over. */
export const exchangeTranscript = (
  chain: Uint8Array,
  request: Uint8Array,
  random: Uint8Array,
  exchange: Uint8Array,
): Uint8Array => sha256(sha256(chain), request, random, exchange);

/** Objects of discovery, in their order. */
const OBJECTS = [OBJECT_TYPE.discovery, OBJECT_TYPE.spdm, OBJECT_TYPE.securedSpdm];

/** The device's end. */
export class SpdmResponder {
  readonly #options: SpdmResponderOptions;
  #session: SessionEnd | undefined;
  #secret: SessionSecret | undefined;
  #established = false;
  /** Records that did not open. */
  ignored = 0;

  /** No session is open. Made with its device. */
  constructor(options: SpdmResponderOptions) {
    this.#options = options;
  }

  /** Somebody proved to have the session's keys. */
  get inSession(): boolean {
    return this.#established;
  }

  /** As after power-on. */
  reset(): void {
    const was = this.#established;
    this.#session = undefined;
    this.#secret = undefined;
    this.#established = false;
    if (was) this.#options.onSessionEnd();
  }

  /** The answer to an object; undefined if it is no object of a mailbox. */
  answer(object: Uint8Array): Uint8Array | undefined {
    const parts = decodeObject(object);
    if (parts?.vendor !== PCI_SIG) return undefined;
    const { type, payload } = parts;
    if (type === OBJECT_TYPE.discovery) return this.#discovered(payload[0] ?? 0);
    if (type === OBJECT_TYPE.spdm) return objectOf(type, this.#inTheClear(payload));
    return type === OBJECT_TYPE.securedSpdm ? this.#inSession(payload) : undefined;
  }

  #discovered(index: number): Uint8Array {
    const type = OBJECTS[index];
    const payload =
      type === undefined
        ? encodeDiscovered(0xffff, 0xff, 0)
        : encodeDiscovered(PCI_SIG, type, index + 1 < OBJECTS.length ? index + 1 : 0);
    return objectOf(OBJECT_TYPE.discovery, payload);
  }

  #inTheClear(payload: Uint8Array): Uint8Array {
    const received = decodeSpdmRequest(payload);
    if ("error" in received) return refusal(received.error);
    const { request } = received;
    switch (request.type) {
      case "getVersion":
        return encodeSpdmResponse({ type: "getVersion", versions: [0x12] });
      case "getDigests":
        return encodeSpdmResponse({ type: "getDigests", slots: 1, digests: [sha256(this.#options.chain)] });
      case "getCertificate":
        return this.#certificate(request);
      case "getMeasurements":
        return this.#measurements(request);
      case "keyExchange":
        return this.#exchangeKeys(request);
      default:
        return refusal("sessionRequired");
    }
  }

  #inSession(payload: Uint8Array): Uint8Array {
    const session = this.#session;
    const message = session?.open(payload);
    if (!session || !message) {
      this.ignored++;
      return objectOf(OBJECT_TYPE.spdm, refusal("decrypt"));
    }
    const answer = this.#answerInside(message);
    const object = objectOf(OBJECT_TYPE.securedSpdm, session.seal(answer.bytes));
    if (answer.ends) this.reset();
    return object;
  }

  #answerInside(message: Uint8Array): { readonly bytes: Uint8Array; readonly ends?: boolean } {
    const received = decodeSpdmRequest(message);
    if ("error" in received) return { bytes: refusal(received.error) };
    const { request } = received;
    if (request.type === "finish") {
      if (this.#established || !sameBytes(request.verify, verifyData(this.#secret!, "requester")))
        return { bytes: refusal("invalidRequest"), ends: !this.#established };
      this.#established = true;
      return { bytes: encodeSpdmResponse({ type: "finish" }) };
    }
    if (!this.#established) return { bytes: refusal("unexpectedRequest") };
    if (request.type === "endSession") return { bytes: encodeSpdmResponse({ type: "endSession" }), ends: true };
    if (request.type === "getMeasurements") return { bytes: this.#measurements(request) };
    if (request.type !== "vendorDefined") return { bytes: refusal("unexpectedRequest") };
    const { protocol } = request;
    const answer = this.#options.protocol(protocol, request.message);
    return {
      bytes: answer
        ? encodeSpdmResponse({ type: "vendorDefined", protocol, message: answer })
        : refusal("unsupportedRequest"),
    };
  }

  #certificate({ slot, offset, length }: SpdmRequest & { type: "getCertificate" }): Uint8Array {
    const { chain } = this.#options;
    if (slot !== 0 || offset >= chain.length) return refusal("invalidRequest");
    const portion = chain.slice(offset, offset + length);
    const remainder = chain.length - offset - portion.length;
    return encodeSpdmResponse({ type: "getCertificate", slot, portion, remainder });
  }

  #measurements(request: SpdmRequest & { type: "getMeasurements" }): Uint8Array {
    const all = this.#options.measurements();
    const { which, nonce } = request;
    const asked = which === ALL_MEASUREMENTS ? all : all.filter(({ index }) => index === which);
    if (which !== 0 && which !== ALL_MEASUREMENTS && asked.length === 0) return refusal("invalidRequest");
    const response = {
      type: "getMeasurements",
      blocks: which === 0 ? all.length : asked.length,
      record: encodeMeasurements(asked),
      nonce: randomBytes(this.#options.random, 32),
    } as const;
    if (!nonce) return encodeSpdmResponse(response);
    const transcript = measurementTranscript(encodeSpdmRequest(request), response);
    return encodeSpdmResponse({ ...response, signature: this.#options.keys.sign(this.#options.identity, transcript) });
  }

  #exchangeKeys(request: SpdmRequest & { type: "keyExchange" }): Uint8Array {
    const { keys, identity, chain, random } = this.#options;
    if (this.#established && this.#options.isHeld()) return refusal("sessionLimitExceeded");
    this.reset();
    const own = keys.pair(random);
    const shared = keys.agree(own, request.exchange);
    if (request.slot !== 0 || !shared) return refusal("invalidRequest");
    const nonce = randomBytes(random, 32);
    const transcript = exchangeTranscript(chain, encodeSpdmRequest(request), nonce, own.publicKey);
    const sessionId = random.below(65_536);
    const secret: SessionSecret = { id: sessionId * 65_536 + request.sessionId, shared, transcript };
    this.#secret = secret;
    this.#session = new SessionEnd(secret, "responder");
    return encodeSpdmResponse({
      type: "keyExchange",
      sessionId,
      random: nonce,
      exchange: own.publicKey,
      signature: keys.sign(identity, transcript),
      verify: verifyData(secret, "responder"),
    });
  }
}

const refusal = (error: SpdmErrorName): Uint8Array => encodeSpdmResponse({ type: "error", error });

const objectOf = (type: number, payload: Uint8Array): Uint8Array =>
  encodeObject({ vendor: PCI_SIG, type, payload: joined(payload) });
