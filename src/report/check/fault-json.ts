/**
 * A device's fault as data: `fault`, `mapping` and `hypotheses` of a finding.
 *
 * Idea: a fault says what was told of it, a mapping how it may be explained; both have every key, null where it does not apply. Addresses are
 * hex strings, exact for 64 bits; times whole nanoseconds on the trace's own clock; lengths bytes.
 */

import type { FaultFacts, Finding, MappingFacts } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import { directionWord } from "../recording.ts";
import { clockNs } from "./clock.ts";

/** The keys that a finding of a fault has besides those of every finding; none for any other. */
export function faultJson({ fault, mapping, hypotheses }: Finding, base: bigint): object {
  if (!fault) return {};
  return {
    fault: factsJson(fault, base),
    mapping: mapping === undefined ? null : mappingJson(mapping, base),
    hypotheses: (hypotheses ?? []).map((one) => mappingJson(one, base)),
  };
}

function factsJson(fault: FaultFacts, base: bigint): object {
  const { device, address, access, count, reason, source } = fault;
  const { lengthBytes, reads, writes, firstNs, lastNs, unit, stream, pasid } = fault;
  return {
    device,
    address: address === undefined ? null : hex(address),
    access,
    count,
    reason,
    source,
    length: lengthBytes,
    reads,
    writes,
    firstNs: clockNs(firstNs, base),
    lastNs: clockNs(lastNs, base),
    unit: unit ?? null,
    stream: stream ?? null,
    pasid: pasid ?? null,
  };
}

function mappingJson(mapping: MappingFacts, base: bigint): object {
  const { relation, cause, confidence, message, device, iova, lengthBytes, direction, mappedNs, endedNs } = mapping;
  const { mappedBy, endedBy, distanceBytes, side, bits } = mapping;
  return {
    relation,
    iova: iova === undefined ? null : hex(iova),
    length: lengthBytes ?? null,
    direction: direction === undefined ? null : (directionWord(direction) ?? String(direction)),
    mappedNs: clockNs(mappedNs, base),
    endedNs: clockNs(endedNs, base),
    distanceBytes: distanceBytes ?? null,
    side: side ?? null,
    bits: bits ?? null,
    device: device ?? null,
    mappedBy: mappedBy ?? null,
    endedBy: endedBy ?? null,
    cause,
    confidence,
    message,
  };
}
