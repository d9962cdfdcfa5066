/**
 * IDE_KM: the messages that bring keys to the two ends of a stream, as values and as bytes.
 *
 * Idea: for each stream six keys: received and sent, by posted, non-posted requests and completions; each in one of two sets, so
 * that new keys are brought while the old ones are in use. They travel in the authenticated session, never in the clear.
 * Promises: decode gives back what was encoded; other bytes give undefined.
 * Specified by: PCI Express base specification 6.1, 6.33.3; numbers as in DMTF's public definitions (libspdm, BSD).
 */
import { viewOf } from "../nvme/index.ts";

/** Bytes of a key, and of the invocation field that its counter starts with. */
export const KEY_BYTES = 32;
export const INVOCATION_BYTES = 8;

/** Codes of the messages. */
const KEY_MESSAGE = {
  query: 0,
  queryResponse: 1,
  program: 2,
  programmed: 3,
  go: 4,
  stop: 5,
  switched: 6,
} as const;

/** What a port answers to a key. */
export const KEY_STATUS = {
  success: 0,
  incorrectLength: 1,
  unsupportedPortIndex: 2,
  unsupportedValue: 3,
  unspecifiedFailure: 4,
} as const;

/** Which of a stream's keys is meant. */
export interface KeyPlace {
  readonly stream: number;
  readonly portIndex: number;
  readonly keySet: 0 | 1;
  readonly direction: "receive" | "transmit";
  readonly kind: "posted" | "non-posted" | "completion";
}

/** A message about keys. */
export type KeyMessage =
  | { readonly type: "query"; readonly portIndex: number }
  | {
      readonly type: "queryResponse";
      readonly portIndex: number;
      readonly requester: number;
      readonly maxPortIndex: number;
      /** The words of the port's IDE capability. */
      readonly registers: readonly number[];
    }
  | ({ readonly type: "program"; readonly key: Uint8Array; readonly invocation: Uint8Array } & KeyPlace)
  | ({ readonly type: "programmed"; readonly status: number } & KeyPlace)
  /** Use this set from now on; do not use it any more; done. */
  | ({ readonly type: "go" | "stop" | "switched" } & KeyPlace);

const KINDS = ["posted", "non-posted", "completion"] as const;
const PLACED_BYTES = 8;

function encodePlace(code: number, place: KeyPlace, extra: number): Uint8Array {
  const bytes = new Uint8Array(PLACED_BYTES + extra);
  bytes[0] = code;
  bytes[3] = place.stream;
  bytes[5] = place.keySet | (place.direction === "transmit" ? 2 : 0) | (KINDS.indexOf(place.kind) << 4);
  bytes[6] = place.portIndex;
  return bytes;
}

function decodePlace(bytes: Uint8Array): KeyPlace | undefined {
  const place = bytes[5]!;
  const kind = KINDS[place >>> 4];
  return kind === undefined || (place & 0xc) !== 0
    ? undefined
    : {
        stream: bytes[3]!,
        portIndex: bytes[6]!,
        keySet: (place & 1) as 0 | 1,
        direction: (place & 2) !== 0 ? "transmit" : "receive",
        kind,
      };
}

/** A message as it is sent. */
export function encodeKeyMessage(message: KeyMessage): Uint8Array {
  switch (message.type) {
    case "query":
      return Uint8Array.of(KEY_MESSAGE.query, 0, message.portIndex);
    case "queryResponse": {
      const bytes = new Uint8Array(7 + 4 * message.registers.length);
      const { requester } = message;
      bytes.set([KEY_MESSAGE.queryResponse, 0, message.portIndex, requester & 0xff, (requester >>> 8) & 0xff]);
      bytes.set([Math.floor(requester / 65_536) & 0xff, message.maxPortIndex], 5);
      message.registers.forEach((word, i) => {
        viewOf(bytes).setUint32(7 + 4 * i, word, true);
      });
      return bytes;
    }
    case "program": {
      const bytes = encodePlace(KEY_MESSAGE.program, message, KEY_BYTES + INVOCATION_BYTES);
      bytes.set(message.key, PLACED_BYTES);
      bytes.set(message.invocation, PLACED_BYTES + KEY_BYTES);
      return bytes;
    }
    case "programmed": {
      const bytes = encodePlace(KEY_MESSAGE.programmed, message, 0);
      bytes[4] = message.status;
      return bytes;
    }
    default:
      return encodePlace(KEY_MESSAGE[message.type], message, 0);
  }
}

/** What a message says; undefined if it is none. A key of another length is told by {@link keyLengthFits}. */
export function decodeKeyMessage(bytes: Uint8Array): KeyMessage | undefined {
  const code = bytes[0];
  if (code === KEY_MESSAGE.query) return bytes.length === 3 ? { type: "query", portIndex: bytes[2]! } : undefined;
  if (code === KEY_MESSAGE.queryResponse) {
    if (bytes.length < 7 || (bytes.length - 7) % 4 !== 0) return undefined;
    const view = viewOf(bytes);
    return {
      type: "queryResponse",
      portIndex: bytes[2]!,
      requester: bytes[5]! * 65_536 + bytes[4]! * 256 + bytes[3]!,
      maxPortIndex: bytes[6]!,
      registers: Array.from({ length: (bytes.length - 7) / 4 }, (_, i) => view.getUint32(7 + 4 * i, true)),
    };
  }
  if (bytes.length < PLACED_BYTES) return undefined;
  const place = decodePlace(bytes);
  if (!place) return undefined;
  if (code === KEY_MESSAGE.program)
    return {
      type: "program",
      ...place,
      key: bytes.slice(PLACED_BYTES, PLACED_BYTES + KEY_BYTES),
      invocation: bytes.slice(PLACED_BYTES + KEY_BYTES),
    };
  if (bytes.length !== PLACED_BYTES) return undefined;
  if (code === KEY_MESSAGE.programmed) return { type: "programmed", ...place, status: bytes[4]! };
  if (code === KEY_MESSAGE.go) return { type: "go", ...place };
  if (code === KEY_MESSAGE.stop) return { type: "stop", ...place };
  return code === KEY_MESSAGE.switched ? { type: "switched", ...place } : undefined;
}

/** The key and its invocation field have the length they must. */
export const keyLengthFits = (message: KeyMessage & { readonly type: "program" }): boolean =>
  message.key.length === KEY_BYTES && message.invocation.length === INVOCATION_BYTES;
