/**
 * The judgement of a device: evidence, policy and the guest's own view of it in; yes, or every reason why not, out.
 *
 * Idea: a pure function, so that a judgement can be repeated, kept, and made by somebody else. Evidence came through the host, so
 * nothing of it is looked at before its digests are those that the manager gave.
 * Promises: all reasons, not only the first; no evidence makes it throw.
 */
import { decodeChain, decodeMeasurements } from "../../../layouts/spdm/index.ts";
import {
  decodeReport,
  INTERFACE_INFO,
  type InterfaceReport,
  type MmioRange,
  RANGE_ATTRIBUTE,
} from "../../../layouts/tdisp/index.ts";
import type { DeviceEvidence, Endorsement } from "../../../platform/index.ts";
import { type AttestationPolicy, policyHex } from "./policy.ts";

/** A BAR, as the guest sees it. Bytes. */
export interface VisibleBar {
  /** 0 to 5. */
  readonly index: number;
  /** Where the guest sees its first byte. */
  readonly phys: number;
  /** Bytes. */
  readonly length: number;
}

/** Why a device is not let in. */
export type ReasonCode =
  /** What came through the host is not what the manager saw. */
  | "digest"
  /** The measurements are not over this guest's nonce: they may be old. */
  | "nonce"
  /** The bytes are no report, record or chain. */
  | "format"
  | "root"
  | "measurement"
  | "firmware-update"
  /** The memory that the device reports is not where the guest sees it, or not all of what the guest sees. */
  | "memory"
  /** Memory outside the trust that the policy does not allow. */
  | "outside-memory";

/** A reason, and its numbers in words. */
export interface Reason {
  /** Which check failed, by a name that stays. */
  readonly code: ReasonCode;
  /** What is wrong, with the numbers. */
  readonly what: string;
}

/** A run of device memory, where the guest sees it. Bytes. */
export interface InterfaceMemory {
  /** BAR that it lies in. */
  readonly bar: number;
  /** Where the guest sees its first byte. */
  readonly phys: number;
  /** Bytes, whole pages. */
  readonly length: number;
  /** Part of the trusted interface. */
  readonly isTrusted: boolean;
}

/** What came of it. */
export interface Judgement {
  /** True if there is no reason against it. */
  readonly accepted: boolean;
  /** Every reason against it. */
  readonly reasons: readonly Reason[];
  /** The device's memory, in the report's order; empty unless the report is believed. */
  readonly memory: readonly InterfaceMemory[];
}

/** All that a judgement is made from. */
export interface JudgedDevice {
  /** What the host carried: report, measurements, certificates. */
  readonly evidence: DeviceEvidence;
  /** What the manager vouches for: the digests of that evidence. */
  readonly endorsement: Endorsement;
  /** What the guest gave when it asked. */
  readonly nonce: Uint8Array;
  /** Where the guest sees the device's memory. */
  readonly bars: readonly VisibleBar[];
  /** As the manager digests. */
  readonly digest: (bytes: Uint8Array) => Uint8Array;
}

/** Does the evidence satisfy the policy? */
export function judgeEvidence(policy: AttestationPolicy, device: JudgedDevice): Judgement {
  const { evidence, endorsement, nonce, digest } = device;
  const reasons: Reason[] = [];
  for (const part of ["report", "measurements", "certificates"] as const)
    if (policyHex(digest(evidence[part])) !== policyHex(endorsement.digests[part]))
      reasons.push({ code: "digest", what: `the ${part} are not those that the security manager saw` });
  if (policyHex(endorsement.nonce) !== policyHex(nonce))
    reasons.push({ code: "nonce", what: "the measurements were signed over another nonce" });
  if (reasons.length > 0) return { accepted: false, reasons, memory: [] };
  reasons.push(...rootReasons(policy, evidence.certificates), ...measurementReasons(policy, evidence.measurements));
  const report = decodeReport(evidence.report);
  if (!report) reasons.push({ code: "format", what: "the report is none" });
  else reasons.push(...reportReasons(policy, report, endorsement.reportingOffset, device.bars));
  const memory = report ? report.ranges.map((range) => placed(range, endorsement.reportingOffset)) : [];
  return { accepted: reasons.length === 0, reasons, memory };
}

function rootReasons({ roots }: AttestationPolicy, certificates: Uint8Array): Reason[] {
  const chain = decodeChain(certificates);
  if (!chain) return [{ code: "format", what: "the certificate chain is none" }];
  const root = policyHex(chain.rootDigest);
  return roots.includes(root) ? [] : [{ code: "root", what: `nobody believes the root certificate ${root}` }];
}

function measurementReasons(policy: AttestationPolicy, record: Uint8Array): Reason[] {
  const blocks = decodeMeasurements(record);
  if (!blocks) return [{ code: "format", what: "the measurements are none" }];
  const reasons: Reason[] = [];
  const seen = new Set<number>();
  for (const { index, measured, value } of blocks) {
    if (seen.has(index)) reasons.push({ code: "measurement", what: `measurement ${index} is given twice` });
    seen.add(index);
    const good = policy.measurements[index];
    if (good === undefined) {
      if (!policy.allowOtherMeasurements)
        reasons.push({ code: "measurement", what: `the policy does not name measurement ${index} (${measured})` });
    } else if (!good.includes(policyHex(value)))
      reasons.push({ code: "measurement", what: `measurement ${index} (${measured}) is ${policyHex(value)}` });
  }
  for (const index of Object.keys(policy.measurements).map(Number))
    if (!seen.has(index)) reasons.push({ code: "measurement", what: `measurement ${index} is missing` });
  return reasons;
}

function reportReasons(
  policy: AttestationPolicy,
  report: InterfaceReport,
  offset: number,
  bars: readonly VisibleBar[],
): Reason[] {
  const reasons: Reason[] = [];
  if ((policy.noFirmwareUpdate ?? true) && (report.interfaceInfo & INTERFACE_INFO.noFirmwareUpdate) === 0)
    reasons.push({ code: "firmware-update", what: "the device takes new firmware while it is locked" });
  const covered = new Map<number, number>();
  for (const range of report.ranges) {
    const { bar: id, phys, length } = placed(range, offset);
    const bar = bars.find(({ index }) => index === id);
    if (!bar || phys < bar.phys || phys + length > bar.phys + bar.length)
      reasons.push({
        code: "memory",
        what: `BAR ${id} is reported at 0x${phys.toString(16)}, and seen at ${bar ? `0x${bar.phys.toString(16)}` : "no address"}`,
      });
    else covered.set(id, (covered.get(id) ?? 0) + length);
    if (!mayBeOutside(range, policy.outsideMemory ?? "msix"))
      reasons.push({ code: "outside-memory", what: `${length} bytes of BAR ${id} are outside the trust` });
  }
  for (const { index, length } of bars)
    if (covered.get(index) !== length)
      reasons.push({
        code: "memory",
        what: `${covered.get(index) ?? 0} of ${length} bytes of BAR ${index} are reported`,
      });
  return reasons;
}

const placed = ({ firstPage, pages, attributes, id }: MmioRange, offset: number): InterfaceMemory => ({
  bar: id,
  phys: firstPage - offset,
  length: pages * 4096,
  isTrusted: (attributes & RANGE_ATTRIBUTE.nonTee) === 0,
});

function mayBeOutside({ attributes }: MmioRange, allowed: "none" | "msix" | "any"): boolean {
  if ((attributes & RANGE_ATTRIBUTE.nonTee) === 0 || allowed === "any") return true;
  return allowed === "msix" && (attributes & (RANGE_ATTRIBUTE.msixTable | RANGE_ATTRIBUTE.msixPba)) !== 0;
}
