/** The contract that every host must keep, on a real kernel, with QEMU's edu as the device that copies. */
import type { BackEnd, LinuxHost } from "../../../src/hosts/linux/index.ts";
import { type Case, runCase, whyNot } from "../../conformance/any-host.ts";
import { anyHostCases } from "../../conformance/any-host-cases.ts";
import { twoStepCases } from "../../conformance/any-host-two-steps.ts";
import { anyLinuxHost } from "../../conformance/any-linux-host.ts";
import { EDU_MASK, Edu } from "./edu.ts";
import { equal, type Report } from "./report.ts";

export async function conformanceCases(report: Report, host: LinuxHost, name: string, backEnd: BackEnd): Promise<void> {
  await casesOn(report, host, name, backEnd, false, anyHostCases);
  await casesOn(report, host, name, backEnd, true, twoStepCases); // one-shot mappings never wait
}

async function casesOn(
  report: Report,
  host: LinuxHost,
  name: string,
  backEnd: BackEnd,
  coalesce: boolean,
  cases: readonly Case[],
): Promise<void> {
  const device = host.openDevice(name, { backEnd, coalesce });
  const title = `${backEnd}: any host${coalesce ? ", coalesced" : ""}`;
  try {
    const edu = new Edu(device);
    const any = anyLinuxHost(host, device, EDU_MASK, async (from, to, length) => {
      await edu.read(from, length);
      await edu.write(to, length);
    });
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
