/** The contract that every host must keep, on a real kernel, with QEMU's edu as the device that copies. */
import type { BackEnd, LinuxDevice, LinuxHost, Sysfs } from "../../../src/hosts/linux/index.ts";
import { type Case, runCase, whyNot } from "../../conformance/any-host.ts";
import { anyHostCases } from "../../conformance/any-host-cases.ts";
import { twoStepCases } from "../../conformance/any-host-two-steps.ts";
import { anyLinuxHost } from "../../conformance/any-linux-host.ts";
import { EDU_MASK, Edu, missesLastBytes } from "./edu.ts";
import { equal, type Report } from "./report.ts";

export async function conformanceCases(
  report: Report,
  host: LinuxHost,
  sysfs: Sysfs,
  name: string,
  backEnd: BackEnd,
): Promise<void> {
  const missesLast = missesLastBytes(sysfs);
  const on = (coalesce: boolean, cases: readonly Case[]): Promise<void> =>
    casesOn(report, host, host.openDevice(name, { backEnd, coalesce }).device, {
      backEnd,
      coalesce,
      cases,
      missesLast,
    });
  await on(false, anyHostCases);
  await on(true, twoStepCases); // one-shot mappings never wait
}

interface Run {
  readonly backEnd: BackEnd;
  readonly coalesce: boolean;
  readonly cases: readonly Case[];
  readonly missesLast: boolean;
}

async function casesOn(report: Report, host: LinuxHost, device: LinuxDevice, run: Run): Promise<void> {
  const { backEnd, coalesce, cases, missesLast } = run;
  const title = `${backEnd}: any host${coalesce ? ", coalesced" : ""}`;
  try {
    const edu = new Edu(device);
    const copy = async (from: number, to: number, length: number): Promise<void> => {
      await edu.read(from, length);
      await edu.write(to, length);
    };
    const any = { ...anyLinuxHost(host, device, EDU_MASK, copy), missesLastBytes: missesLast };
    for (const each of cases) {
      const what = `${title}: ${each.name}`;
      const reason = whyNot(any, each);
      if (reason === undefined) await report.test(what, () => runCase(any, each));
      else report.skip(what, reason);
    }
    await report.test(`${title}: after all of it nothing is mapped`, () => {
      const { areaCount, mappings, counters } = device.domain;
      equal([areaCount, mappings.length], [0, 0], "areas and mappings");
      equal(counters.leavesWritten, counters.leavesCleared, "pages mapped and unmapped");
      equal(counters.iovaAllocations, counters.iovaFrees, "ranges reserved and given back");
    });
  } finally {
    device.close();
  }
}
