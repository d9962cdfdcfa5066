/**
 * The one-line forms of the other IOMMU drivers: a table, one row a sentence.
 *
 * Idea: each driver has one sentence with an address, and often a direction; a row says how to find them. The number by which the
 * unit knows the device is kept as its stream. Promises: patterns are bounded, so that a line costs its length.
 * To add one: a row, and its sentence in the table of the test.
 * Specified by: the lines of Linux 4.4 to 7.2.
 */
import { type Access, type FactSink, type IommuFault, type MessageReader, shown, type UnitKind } from "./facts.ts";
import { deviceName, hexBits, number, ownerBefore, requesterName } from "./names.ts";

const HEX = "((?:0x)?[0-9a-f]{1,16})";

interface Sentence {
  readonly unit: UnitKind;
  /** A word that the line has, looked for first. */
  readonly word: string;
  /** Groups by name: address, access, stream, device, code, why. */
  readonly pattern: RegExp;
  readonly reason: string;
  /** The sentence is only printed where nothing is mapped. */
  readonly absent?: boolean;
}

const SENTENCES: readonly Sentence[] = [
  {
    // virtio_iommu virtio0: page fault from EP 48 at 0xffff000 [W]
    unit: "virtio",
    word: "fault from EP",
    pattern: new RegExp(
      `(?<why>domain|page|unknown) fault from EP (?<stream>\\d{1,10})(?: at ${named("address")})? \\[(?<access>[RWX ]{0,6})\\]`,
      "i",
    ),
    reason: "",
  },
  {
    // rk_iommu ff650800.iommu: Page fault at 0x0000000004382010 of type write
    unit: "rockchip",
    word: "rk_iommu",
    pattern: new RegExp(`Page fault at ${named("address")} of type (?<access>read|write)`, "i"),
    reason: "nothing is mapped there",
    absent: true,
  },
  {
    // mtk-iommu 10205000.iommu: fault type=0x5 iova=0xff600000 pa=0x0 master=0x7(larb=0, port=1) layer=0 write
    unit: "mediatek",
    word: "mtk-iommu",
    pattern: new RegExp(
      `fault type=(?<code>0x[0-9a-f]{1,8}) iova=${named("address")} pa=0x[0-9a-f]{1,16} (?:master=(?<stream>0x[0-9a-f]{1,8}))?.{0,40}?layer=\\d{1,3} (?<access>read|write)`,
      "i",
    ),
    reason: "translation fault",
  },
  {
    // exynos-sysmmu 11200000.sysmmu: 11c00000.codec: [READ] PAGE FAULT occurred at 0x20000000
    unit: "exynos",
    word: "FAULT occurred at",
    pattern: new RegExp(
      `(?:(?<device>[^\\s:]{1,64}): )?(?:\\[(?<access>READ|WRITE)\\] )?(?<why>[A-Z][A-Z -]{2,40}?) FAULT occurred at ${named("address")}`,
    ),
    reason: "",
  },
  {
    // tegra-mc 70019000.memory-controller: display0a: read @0xfe056b40: EMEM address decode error (SMMU translation error [--S])
    unit: "tegra",
    word: "SMMU translation error",
    pattern: new RegExp(`(?<device>[^\\s:]{1,64}): (?:secure )?(?<access>read|write) ?@${named("address")}: `, "i"),
    reason: "SMMU translation error",
  },
  {
    // apple-dart 231304000.iommu: translation fault: status:0x80000008 stream:1 code:0x8 (PTE invalid) at 0x10000000
    unit: "dart",
    word: "translation fault: status:",
    pattern: new RegExp(
      `stream:(?<stream>\\d{1,5}) code:(?<code>0x[0-9a-f]{1,8}) \\((?<why>[^)]{0,60})\\) at ${named("address")}`,
      "i",
    ),
    reason: "translation fault",
  },
  {
    // ipmmu-vmsa e67b0000.mmu: Unhandled fault: status 0x00002001 iova 0x70003000
    unit: "ipmmu",
    word: "Unhandled fault: status",
    pattern: new RegExp(`Unhandled fault: status (?<code>0x[0-9a-f]{1,8}) iova ${named("address")}`, "i"),
    reason: "translation fault",
  },
  {
    // sun50i-iommu 30f0000.iommu: Page fault for 0xffc00000 (master 1, dir wr)
    unit: "sun50i",
    word: "Page fault for",
    pattern: new RegExp(
      `Page fault for ${named("address")} \\(master (?<stream>\\d{1,3}), dir (?<access>wr|rd|[01])\\)`,
      "i",
    ),
    reason: "nothing is mapped there",
    absent: true,
  },
  {
    // omap-iommu 55082000.mmu: 55082000.mmu: errs:0x00000002 da:0x0 pgd:0x… *pgd:px…
    unit: "omap",
    word: "omap-iommu",
    pattern: new RegExp(`errs:(?<code>0x[0-9a-f]{1,8}) da:${named("address")}`, "i"),
    reason: "translation fault",
  },
  {
    // riscv,iommu 10010000.iommu: Fault 13 devid: 0x8 iotval: 1000 iotval2: 0
    unit: "riscv",
    word: "iotval",
    pattern: new RegExp(
      `Fault (?<code>\\d{1,5}) devid: (?<stream>(?:0x)?[0-9a-f]{1,8}),? iotval: ${named("address")}`,
      "i",
    ),
    reason: "",
  },
  {
    // amdgpu 0000:03:00.0: amdgpu:   in page starting at address 0x00007f1200000000 from client 0x1b (UTCL2)
    unit: "gpu",
    word: "in page starting at address",
    pattern: new RegExp(`in page starting at address ${named("address")}`, "i"),
    reason: "the graphics unit's own page tables have nothing there: not the IOMMU",
  },
  {
    // i915, xe, msm and others name a fault of their own page tables in their own words; msm's has the IOMMU's address.
    unit: "smmu-v2",
    word: "*** fault: iova=",
    pattern: new RegExp(`\\*\\*\\* fault: iova= *${named("address")}, flags=(?<code>\\d{1,4})`, "i"),
    reason: "a context fault, told by the graphics driver",
  },
];

/** What the kernel prints around the sentences above, and says nothing more. */
const AROUND =
  /rk_iommu \S{1,64}: (?:iova = |mmu_dte_addr: )|exynos-sysmmu \S{1,64}: (?:Page table base|\tLv[12] entry|\s*Lv[12] entry)|\[\w{0,8}hub\d{0,2}\] (?:no-)?(?:retry )?page fault \(|(?:GC|MM)?VM_L2_PROTECTION_FAULT_STATUS|Faulty UTCL2 client ID|(?:MORE_FAULTS|WALKER_ERROR|PERMISSION_FAULTS|MAPPING_ERROR): 0x/;

/** RISC-V causes by number. Source: RISC-V IOMMU specification, fault causes. */
const RISCV: Readonly<Record<number, readonly [string, Access]>> = {
  1: ["an instruction could not be read", "read"],
  5: ["a read was refused by the memory", "read"],
  7: ["a write was refused by the memory", "write"],
  12: ["page fault of an instruction", "read"],
  13: ["page fault of a read", "read"],
  15: ["page fault of a write", "write"],
  20: ["guest page fault of an instruction", "read"],
  21: ["guest page fault of a read", "read"],
  23: ["guest page fault of a write", "write"],
  256: ["all inbound requests are disallowed", "unknown"],
  257: ["the device's entry could not be read", "unknown"],
  258: ["the device's entry is not valid: it is attached to nothing", "unknown"],
  259: ["the device's entry is misconfigured", "unknown"],
  260: ["a request that the device's entry does not allow", "unknown"],
};

export class OtherUnitsReader<At> implements MessageReader<At> {
  readonly #emit: FactSink<At>;

  constructor(emit: FactSink<At>) {
    this.#emit = emit;
  }

  read(message: string, at: At): boolean {
    for (const sentence of SENTENCES) {
      if (!message.includes(sentence.word)) continue;
      const match = sentence.pattern.exec(message);
      if (!match?.groups) continue;
      this.#emit(faultOf(sentence, match, message, at));
      return true;
    }
    return AROUND.test(message);
  }

  settle(): void {}
}

function faultOf<At>(sentence: Sentence, match: RegExpExecArray, message: string, at: At): IommuFault<At> {
  const { address, access, stream, device, code, why } = match.groups as Partial<Record<string, string>>;
  const owner = ownerBefore(message, match.index);
  const streamNumber = number(stream);
  const codeNumber = number(code);
  const riscv = sentence.unit === "riscv" ? RISCV[codeNumber ?? -1] : undefined;
  const words = [
    why === undefined ? undefined : `${why.trim().toLowerCase()}${/fault$/i.test(sentence.reason) ? "" : " fault"}`,
  ];
  const reason =
    riscv?.[0] ??
    (sentence.reason === ""
      ? (words[0] ?? "a fault")
      : why === undefined
        ? sentence.reason
        : `${sentence.reason}: ${why}`);
  return {
    kind: "fault",
    unit: sentence.unit,
    unitName: sentence.unit === "gpu" ? undefined : owner.device,
    device: deviceOf(sentence, device, streamNumber, owner.device),
    stream: streamNumber,
    address: address === undefined ? undefined : hexBits(address),
    access: riscv?.[1] ?? accessOf(access),
    reason,
    reasonCode: codeNumber,
    pasid: undefined,
    domain: undefined,
    detached: sentence.unit === "riscv" && codeNumber === 258,
    entry: sentence.absent === true ? "absent" : undefined,
    permission: sentence.absent === true ? false : undefined,
    text: shown(message),
    at,
  };
}

/** An endpoint of virtio-iommu on PCI is the requester id; the others number their masters as the board is wired. */
function deviceOf(
  { unit }: Sentence,
  device: string | undefined,
  stream: number | undefined,
  owner: string | undefined,
): string | undefined {
  if (unit === "gpu") return owner;
  if (device !== undefined) return deviceName(device);
  return unit === "virtio" && stream !== undefined && stream <= 0xffff ? requesterName(stream) : undefined;
}

function accessOf(text: string | undefined): Access {
  const word = text?.trim().toLowerCase() ?? "";
  if (word === "read" || word === "r" || word === "rd" || word === "0") return "read";
  if (word === "write" || word === "w" || word === "wr" || word === "1") return "write";
  return "unknown";
}

/** A hexadecimal number as a group of this name. */
function named(name: string): string {
  return HEX.replace("(", `(?<${name}>`);
}
