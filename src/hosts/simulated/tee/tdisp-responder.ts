/**
 * The device's end of TDISP: messages in, messages out, each about one of its interfaces.
 *
 * Promises: an answer for everything that has a header; what is wrong is an error, and the interface is as it was.
 * Specified by: TDISP (PCI Express base specification 6.1, 11.3).
 */
import {
  decodeRequest,
  encodeReport,
  encodeResponse,
  LOCK_FLAG,
  requesterOf,
  TDISP_REQUEST,
  TDISP_VERSION,
  type TdispRequest,
  type TdispResponse,
} from "../../../layouts/tdisp/index.ts";
import type { DeviceInterface, Refused } from "./device-interface.ts";

/** Bits of an address that a simulated device can send. */
const ADDRESS_BITS = 52;

/** Answers a message about one of `interfaces`; undefined if it is shorter than a header. */
export function answerTdisp(interfaces: Iterable<DeviceInterface>, message: Uint8Array): Uint8Array | undefined {
  const received = decodeRequest(message);
  if (!received) return undefined;
  const { functionId } = received;
  const answer = (response: TdispResponse): Uint8Array => encodeResponse(functionId, response);
  if ("error" in received) return answer({ type: "error", error: received.error, data: 0 });
  const target = [...interfaces].find(({ requester }) => requester === requesterOf(functionId));
  if (!target) return answer({ type: "error", error: "invalidInterface", data: 0 });
  return answer(respond(target, received.request));
}

function respond(target: DeviceInterface, request: TdispRequest): TdispResponse {
  switch (request.type) {
    case "getVersion":
      return { type: "getVersion", versions: [TDISP_VERSION] };
    case "getCapabilities":
      return capabilities();
    case "lockInterface": {
      const done = target.lock(request);
      return "error" in done ? errorOf(done) : { type: "lockInterface", nonce: done.nonce };
    }
    case "getInterfaceReport": {
      const done = target.report();
      if ("error" in done) return errorOf(done);
      const bytes = encodeReport(done.report);
      if (request.offset >= bytes.length || request.length === 0)
        return { type: "error", error: "invalidRequest", data: 0 };
      const portion = bytes.slice(request.offset, request.offset + request.length);
      return { type: "getInterfaceReport", portion, remainder: bytes.length - request.offset - portion.length };
    }
    case "getInterfaceState":
      return { type: "getInterfaceState", state: target.state };
    case "startInterface":
      return done(request.type, target.start(request.nonce));
    case "stopInterface":
      target.stop();
      return { type: request.type };
    case "bindP2pStream":
      return done(request.type, target.bindPeerStream(request.stream));
    case "unbindP2pStream":
      return done(request.type, target.unbindPeerStream(request.stream));
    case "setMmioAttribute":
      return done(request.type, target.setMmioAttribute(request.range));
  }
}

const errorOf = ({ error }: Refused): TdispResponse => ({ type: "error", error, data: 0 });

const done = (
  type: "startInterface" | "bindP2pStream" | "unbindP2pStream" | "setMmioAttribute",
  refusal: Refused | undefined,
): TdispResponse => (refusal ? errorOf(refusal) : { type });

function capabilities(): TdispResponse {
  const requests = new Uint8Array(16);
  for (const code of Object.values(TDISP_REQUEST)) requests[(code - 0x80) >>> 3]! |= 1 << ((code - 0x80) & 7);
  return {
    type: "getCapabilities",
    deviceCapabilities: 0,
    requests,
    lockFlags: Object.values(LOCK_FLAG).reduce((all, flag) => all | flag, 0),
    addressBits: ADDRESS_BITS,
    requestsThis: 1,
    requestsAll: 1,
  };
}
