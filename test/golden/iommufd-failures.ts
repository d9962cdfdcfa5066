/**
 * Failure injection in the iommufd files: a call is repeated, its n-th step failing, until it has no more steps.
 *
 * The steps that iommufd itself has (`own`) are those of dmalink, in the same order, so that answers can be compared one by one.
 * Of all allocations of the kernel (`all`) only what must not happen is judged: an answer that the file does not know, pins that
 * stay. What the calls are given stands in no line: it is what makes their steps as many as the file says.
 */
import { DmaError } from "../../src/base/index.ts";
import { type FailureStep, Ioas, PagingHwpt, readDirty, setDirtyTracking } from "../../src/consumers/iommufd/index.ts";
import { type Answer, answerOf, request, type Stand, Stub } from "./iommufd.ts";
import type { Person } from "./iommufd-world.ts";
import { type Line, NotJudged } from "./judge.ts";

const ERRORS: Readonly<Record<FailureStep, DmaError | undefined>> = {
  lookup: new DmaError("ERR_DMA_TEST", "ENOENT", "made to fail"),
  scratch: new DmaError("ERR_DMA_TEST", "ENOMEM", "made to fail"),
  spare: undefined,
  pin: new DmaError("ERR_DMA_TEST", "EFAULT", "made to fail"),
  charge: new DmaError("ERR_DMA_TEST", "ENOMEM", "made to fail"),
  store: new DmaError("ERR_DMA_TEST", "EINVAL", "made to fail"),
};

/** Counts steps, and makes one fail. */
export class Failures {
  #left = 0;
  wasHit = false;

  /** The `n`-th step from now on fails; 0: none. */
  arm(n: number): void {
    this.#left = n;
    this.wasHit = false;
  }

  point(step: FailureStep): void {
    if (this.#left === 0 || --this.#left > 0) return;
    this.wasHit = true;
    const error = ERRORS[step];
    if (error) throw error;
  }
}

/** What a repeated call does, and what takes it back when it succeeded. */
interface Repeated {
  call(): number;
  undo?(): void;
}

const SCATTERED = 0x10_1000_0000;
const FREE_IOVA = 0x180_0000n;
const MAPPED_IOVA = 0x100_0000n;
/** 24 scattered pages, 4, and 8 of a file. */
const LENGTH = { map: 0x1_8000n, automatic: 0x4000n, file: 0x8000n, copy: 0x4000n } as const;

/** The calls of the files, by name, on the objects that there are. */
function repeated(stand: Stand, name: string, person: Person, line: Line): Repeated {
  const open = [...person.files.values()].find(({ file }) => file.kind === "iommufd");
  const file = stand.iommufd({ ...line, fd: [...person.files].find(([, each]) => each === open)?.[0] }, person);
  const objects = [...file.iommufd.objects];
  const spaces = objects.filter((object): object is Ioas => object instanceof Ioas);
  const [used, empty] = [
    spaces.find(({ tables }) => tables.length > 0),
    spaces.find(({ tables }) => tables.length === 0),
  ];
  const stub = objects.find((object): object is Stub => object instanceof Stub);
  const tracked = objects.find(
    (object): object is PagingHwpt => object instanceof PagingHwpt && object.table.tracksDirty,
  );
  if (!used || !empty || !stub || !tracked) throw new NotJudged(`failNth of ${name} without its objects`);
  const access = [...(stand.accesses.get(person)?.values() ?? [])][0];
  let got = 0n;
  const map = (ioas: Ioas, fixed: boolean, length: bigint): Repeated => ({
    call() {
      const { ret, get } = request(file, "map", person, {
        flags: fixed ? 7 : 6,
        ioas_id: ioas.id,
        user_va: SCATTERED,
        length,
        iova: FREE_IOVA,
      });
      got = get("iova");
      return ret;
    },
    undo: () => void ioas.unmap(got, length),
  });
  const calls: Readonly<Record<string, () => Repeated>> = {
    map: () => map(used, true, LENGTH.map),
    mapAuto: () => map(used, false, LENGTH.automatic),
    mapWithoutDevice: () => map(empty, true, LENGTH.map),
    mapFile: () => ({
      call() {
        const fd = stand.world.fdOf(person, "m");
        const values = { flags: 7, ioas_id: used.id, fd, start: 0, length: LENGTH.file, iova: FREE_IOVA };
        const { ret } = request(file, "mapFile", person, values);
        stand.world.closeFd(person, fd);
        return ret;
      },
      undo: () => void used.unmap(FREE_IOVA, LENGTH.file),
    }),
    copy: () => ({
      call: () =>
        request(file, "copy", person, {
          flags: 7,
          dst_ioas_id: used.id,
          src_ioas_id: used.id,
          length: LENGTH.copy,
          dst_iova: FREE_IOVA,
          src_iova: MAPPED_IOVA,
        }).ret,
      undo: () => void used.unmap(FREE_IOVA, LENGTH.copy),
    }),
    hwptAlloc: () => ({
      call() {
        const { ret, get } = request(file, "hwptAlloc", person, { dev_id: stub.device.id, pt_id: used.id });
        got = get("out_hwpt_id");
        return ret;
      },
      undo: () => file.iommufd.destroy(Number(got)),
    }),
    ioasAlloc: () => ({
      call() {
        const { ret, get } = request(file, "ioasAlloc", person, {});
        got = get("out_ioas_id");
        return ret;
      },
      undo: () => file.iommufd.destroy(Number(got)),
    }),
    replace: () => ({
      call: () =>
        answerOf(() => {
          stand.failures.point("lookup"); // the mock device's own id
          file.iommufd.replace(stub.device, used.id);
          return 0;
        }),
    }),
    accessPin: () => ({
      call: () =>
        answerOf(() => {
          access!.access.pin(MAPPED_IOVA, 0x2000n, true);
          return 0;
        }),
      undo: () => access!.access.unpin(MAPPED_IOVA, 0x2000n),
    }),
    accessRw: () => ({
      call: () =>
        answerOf(() => {
          access!.access.copy(MAPPED_IOVA, new Uint8Array(16), false);
          return 0;
        }),
    }),
    unmap: () => {
      map(used, true, LENGTH.automatic).call();
      return {
        call: () => request(file, "unmap", person, { ioas_id: used.id, iova: FREE_IOVA, length: LENGTH.automatic }).ret,
      };
    },
    allow: () => ({ call: () => request(file, "allowIovas", person, { ioas_id: used.id }).ret }),
    getDirty: () => ({
      call: () =>
        answerOf(() => {
          const hwpt = file.iommufd.pagingHwpt(tracked.id);
          readDirty(hwpt, { iova: MAPPED_IOVA, length: 0x4000n, pageBytes: 0x1000n, clear: true }, () => {});
          return 0;
        }),
    }),
    setDirty: () => ({
      call: () =>
        answerOf(() => {
          setDirtyTracking(file.iommufd.pagingHwpt(tracked.id), true);
          return 0;
        }),
    }),
  };
  if (!Object.hasOwn(calls, name)) throw new NotJudged(`failNth of ${name}`);
  return calls[name]!();
}

/** Linux coped with a failure, once: ours fails the call, and leaves nothing. */
const COPED = "a call that Linux finishes although a step failed is refused, and leaves nothing behind";

export function failNth(stand: Stand, line: Line, person: Person, rule: (name: string) => void): Answer {
  const { call, undo } = repeated(stand, line["call"] as string, person, line);
  const { pinned } = person.process.memory;
  const rets: number[] = [];
  let pinsLeft = 0;
  let succeedsAt = 0;
  while (succeedsAt === 0) {
    const before = pinned.pages;
    stand.failures.arm(rets.length + 1);
    const ret = call();
    const { wasHit } = stand.failures;
    stand.failures.arm(0);
    if (wasHit) rets.push(ret);
    else succeedsAt = rets.length + 1;
    if (ret === 0) undo?.();
    if (line["call"] !== "unmap" && pinned.pages !== before) pinsLeft++;
  }
  if (line["points"] !== "own") {
    const unknown = rets.filter((ret) => !(line["distinctRets"] as number[]).includes(ret));
    return { pinsLeft, distinctRets: unknown.length > 0 ? unknown : line["distinctRets"] };
  }
  const expected = line["rets"] as number[];
  const taken = rets.map((ret, i) => (expected[i] === 0 && ret < 0 ? 0 : ret));
  if (JSON.stringify(taken) !== JSON.stringify(rets)) rule(COPED);
  return { rets: taken, succeedsAt, pinsLeft };
}
