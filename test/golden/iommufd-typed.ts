/**
 * The typed door for the judge of iommufd: the same calls as methods with types, where there is one.
 *
 * What only bytes can say (unknown flags, the greatest address as a length) has no typed form: such a line goes by the bytes.
 */
import {
  type Iommufd,
  type IommufdFile,
  type MapRequest,
  setDirtyTracking,
} from "../../src/consumers/iommufd/index.ts";
import type { IommufdRequestName } from "../../src/layouts/uapi/index.ts";
import { answerOf, type Values } from "./iommufd.ts";
import type { Person } from "./iommufd-world.ts";

/** What a call gives: fields of its structure. */
type Given = Record<string, bigint>;
type TypedCall = (iommufd: Iommufd, values: Values, person: Person, given: Given) => void;

/** Calls that went by the typed door, for the test that there were any. */
export const typedCalls = { count: 0 };

const LAST = 2n ** 64n - 1n;
const big = (value: number | bigint | undefined): bigint => BigInt(value ?? 0);
const num = (value: number | bigint | undefined): number => Number(value ?? 0);

/** Undefined: these flags have no typed form. */
function mapRequest(values: Values, iova: string): MapRequest | undefined {
  const flags = num(values["flags"]);
  const length = big(values["length"]);
  if ((flags & ~7) !== 0 || (flags & 6) === 0 || length === LAST || big(values[iova]) === LAST) return undefined;
  const place = (flags & 1) !== 0 ? { iova: big(values[iova]) } : {};
  return { length, ...place, read: (flags & 4) !== 0, write: (flags & 2) !== 0 };
}

/** The call as a method; undefined: it has no typed form with these values. */
function typedCall(name: IommufdRequestName, values: Values): TypedCall | undefined {
  switch (name) {
    case "ioasAlloc":
      return (iommufd, _values, _person, given) => {
        given["out_ioas_id"] = BigInt(iommufd.createIoas().id);
      };
    case "destroy":
      return (iommufd) => iommufd.destroy(num(values["id"]));
    case "map": {
      const request = mapRequest(values, "iova");
      return (
        request &&
        ((iommufd, { ioas_id, user_va }, { process }, given) => {
          given["iova"] = iommufd.map(iommufd.ioas(num(ioas_id)), process, big(user_va), request);
        })
      );
    }
    case "mapFile": {
      const request = mapRequest(values, "iova");
      if (!request || num(values["fd"]) < 0) return undefined;
      return (iommufd, { ioas_id, fd, start }, { process }, given) => {
        const { file } = process.descriptors.get(num(fd))!;
        given["iova"] = iommufd.mapFile(iommufd.ioas(num(ioas_id)), process, file, big(start), request);
      };
    }
    case "copy": {
      const request = mapRequest(values, "dst_iova");
      if (!request || big(values["src_iova"]) === LAST) return undefined;
      return (iommufd, { src_ioas_id, dst_ioas_id, src_iova }, _person, given) => {
        const source = iommufd.ioas(num(src_ioas_id));
        source.partsAt(big(src_iova), request.length);
        given["dst_iova"] = iommufd.copy(source, big(src_iova), iommufd.ioas(num(dst_ioas_id)), request);
      };
    }
    case "unmap":
      return unmapCall(big(values["iova"]), big(values["length"]));
    case "setDirtyTracking":
      if (num(values["flags"]) > 1) return undefined;
      return (iommufd, { hwpt_id, flags }) => setDirtyTracking(iommufd.pagingHwpt(num(hwpt_id)), flags === 1);
    case "hwptAlloc":
      if (num(values["data_len"]) > 0 || num(values["data_type"]) > 0 || (num(values["flags"]) & ~15) !== 0)
        return undefined;
      return (iommufd, { dev_id, pt_id, flags, fault_id }, _person, given) => {
        const request = { device: num(dev_id), parent: num(pt_id), flags: num(flags), faultQueue: num(fault_id) };
        given["out_hwpt_id"] = BigInt(iommufd.createHwpt(request).id);
      };
    case "vdeviceAlloc":
      return (iommufd, { viommu_id, dev_id, virt_id }, _person, given) => {
        given["out_vdevice_id"] = BigInt(iommufd.createVdevice(num(viommu_id), num(dev_id), big(virt_id)).id);
      };
    case "hwQueueAlloc":
      if (num(values["type"]) === 0) return undefined;
      return (iommufd, { viommu_id, type, index, nesting_parent_iova, length }, _person, given) => {
        const place = [big(nesting_parent_iova), big(length)] as const;
        const queue = iommufd.createHardwareQueue(num(viommu_id), num(type), num(index), ...place);
        given["out_hw_queue_id"] = BigInt(queue.id);
      };
    case "changeProcess":
      return (iommufd, _values, { process }) => iommufd.changeProcess(process);
    default:
      return undefined;
  }
}

/** That nothing was there is no error of the typed call: it says 0 bytes. */
function unmapCall(iova: bigint, length: bigint): TypedCall | undefined {
  if (iova === 0n && length === LAST)
    return (iommufd, { ioas_id }, _person, given) => {
      given["length"] = iommufd.ioas(num(ioas_id)).unmapAll();
    };
  if (iova === LAST || length === LAST) return undefined;
  return (iommufd, { ioas_id }, _person, given) => {
    given["length"] = iommufd.ioas(num(ioas_id)).unmap(iova, length);
  };
}

/** As the request in bytes answers; undefined: only bytes can say it. */
export function typedRequest(
  file: IommufdFile,
  name: IommufdRequestName,
  person: Person,
  values: Values,
): { readonly ret: number; get(field: string): bigint } | undefined {
  const call = typedCall(name, values);
  if (!call) return undefined;
  typedCalls.count++;
  const given: Given = {};
  let ret = answerOf(() => {
    call(file.iommufd, values, person, given);
    return 0;
  });
  const isAll = name === "unmap" && big(values["length"]) === LAST;
  if (name === "unmap" && ret === 0 && given["length"] === 0n && !isAll) ret = -2;
  return { ret, get: (field) => given[field] ?? 0n };
}
