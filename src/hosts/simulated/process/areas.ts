/**
 * Areas that split, grow and become one: which neighbours merge, and what a change of a part leaves.
 *
 * Idea: a change of [start, end) inside an area first tries to join that part to a neighbour that is already so; if none fits, the
 * area is cut. Whether two may join depends, besides their kind, on where their pages' links hang, since two of the same kind
 * whose pages come from different places must stay apart.
 * Promises: the areas of a space are those of Linux after the same calls, merged or not.
 * Specified by: behaviour of Linux 7.2 (vma_merge_existing_range, vma_merge_new_range, __split_vma, copy_vma).
 */
import { cloneAnonLinks, hangAgain, unhang, unlinkAnonVmas } from "./anon-links.ts";
import { badSplit } from "./errors.ts";
import { splitHugeAtBorder } from "./huge.ts";
import { HUGE_PAGES } from "./page-table.ts";
import { type AnonVma, AREA, Area, type AreaShape, insertByOffset, type Space } from "./structures.ts";

/** A new area goes into the space. */
export function enterArea(space: Space, area: Area): void {
  if (area.object) {
    hangOnObject(area);
    area.object.acquire();
  }
  space.areas.insert(area);
}

/** An area leaves for good; its entries are gone. */
export function removeArea(area: Area): void {
  unlinkAnonVmas(area);
  takeFromObject(area);
  area.object?.release();
}

const hangOnObject = (area: Area): void => {
  if (area.object) insertByOffset(area.object.areas, area, (each) => each.offset);
};

/** A child's area stands right behind its parent's. */
export function hangBehind(area: Area, parent: Area): void {
  area.object?.areas.splice(area.object.areas.indexOf(parent) + 1, 0, area);
}

const takeFromObject = (area: Area): void => {
  area.object?.areas.splice(area.object.areas.indexOf(area), 1);
};

/**
 * Cuts `area` at `at`, inside it. The new area is the lower or the upper part; the other keeps its identity.
 *
 * @throws DmaError ERR_DMA_USER_RANGE (EINVAL) inside a huge page of hugetlb; nothing is changed then
 */
export function splitArea(space: Space, area: Area, at: number, newIsLower: boolean): Area {
  if (area.has(AREA.hugetlb) && at % HUGE_PAGES !== 0) throw badSplit(at);
  const { start, end, offset } = area;
  const made = new Area(space, newIsLower ? { ...shapeOf(area), end: at } : partOf(area, at, end));
  cloneAnonLinks(made, area);
  made.object?.acquire();
  hangOnObject(made);
  unhang(area);
  takeFromObject(area);
  splitHugeAtBorder(space, area, at);
  space.areas.remove(area);
  if (newIsLower) area.setRange(at, end, offset + at - start);
  else area.setRange(start, at, offset);
  space.areas.insert(area);
  hangOnObject(area);
  space.areas.insert(made);
  hangAgain(area);
  return made;
}

const shapeOf = (area: Area): AreaShape => ({
  start: area.start,
  end: area.end,
  flags: area.flags,
  object: area.object,
  offset: area.offset,
  ioFrame: area.ioFrame,
});

const partOf = (area: Area, start: number, end: number): AreaShape => ({
  ...shapeOf(area),
  start,
  end,
  offset: area.offsetOf(start),
  ...(area.ioFrame !== undefined && { ioFrame: (area.ioFrame + start - area.start) as typeof area.ioFrame }),
});

/** Is there more on the links of `area` than what it made itself? Then its pages may come from a parent. */
const isForkChild = (area: Area | undefined): boolean => area?.anonVma !== undefined && area.links.length !== 1;

/** What shall join a neighbour. */
interface Candidate {
  readonly start: number;
  readonly end: number;
  readonly flags: number;
  readonly object: Area["object"];
  readonly offset: number;
  readonly anonVma: AnonVma | undefined;
  /** The area that it is a part of, if it exists already. */
  readonly middle?: Area;
  /** The area whose pages will move here. */
  readonly copiedFrom?: Area;
}

/** Registers, and huge pages of hugetlb, whose promises are counted by area: such areas stay as they were mapped. */
const UNMERGED = AREA.io | AREA.hugetlb;

const isSameKind = (wanted: Candidate, neighbour: Area): boolean =>
  neighbour.flags === wanted.flags && neighbour.object === wanted.object;

function linksFit(wanted: Candidate, neighbour: Area): boolean {
  if (!neighbour.anonVma && wanted.anonVma) return !isForkChild(wanted.middle) && !isForkChild(wanted.copiedFrom);
  if (neighbour.anonVma && !wanted.anonVma) return !isForkChild(neighbour);
  return neighbour.anonVma === wanted.anonVma;
}

const joinsLeft = (wanted: Candidate, left: Area | undefined): left is Area =>
  left !== undefined &&
  left.end === wanted.start &&
  isSameKind(wanted, left) &&
  linksFit(wanted, left) &&
  left.offset + left.pages === wanted.offset;

function joinsRight(wanted: Candidate, right: Area | undefined, left: Area | undefined): right is Area {
  if (right === undefined || right.start !== wanted.end) return false;
  if (!isSameKind(wanted, right) || !linksFit(wanted, right)) return false;
  if (right.offset !== wanted.offset + wanted.end - wanted.start) return false;
  return !left?.anonVma || !right.anonVma || left.anonVma === right.anonVma;
}

/** `area` has no page of its own yet: it takes the links of what it swallows. */
function takeLinks(area: Area, from: Area): void {
  if (from.anonVma && !area.anonVma) cloneAnonLinks(area, from);
}

interface Resize {
  readonly area: Area;
  readonly start: number;
  readonly end: number;
  readonly offset: number;
  /** A neighbour that gives or gets the rest; its new start and offset. */
  readonly other?: { readonly area: Area; readonly start: number; readonly offset: number; readonly grows: boolean };
  readonly vanish: readonly Area[];
}

/** Moves borders, and lets go what was swallowed. */
function resize(space: Space, change: Resize): void {
  const { area, other, vanish } = change;
  const isLinked = area.anonVma !== undefined || other?.area.anonVma !== undefined;
  const moved = other ? [area, other.area] : [area];
  for (const each of moved) {
    if (isLinked) unhang(each);
    takeFromObject(each);
  }
  splitHugeAtBorder(space, area, change.start);
  splitHugeAtBorder(space, area, change.end);
  if (other && !other.grows) splitHugeAtBorder(space, other.area, change.end);
  for (const each of [...moved, ...vanish]) space.areas.remove(each);
  area.setRange(change.start, change.end, change.offset);
  if (other) other.area.setRange(other.start, other.area.end, other.offset);
  for (const each of moved) space.areas.insert(each);
  for (const each of [...moved].reverse()) hangOnObject(each);
  for (const each of vanish) takeFromObject(each);
  if (isLinked) for (const each of moved) hangAgain(each);
  for (const each of vanish) {
    unlinkAnonVmas(each);
    each.object?.release();
  }
}

/** Tries to join [start, end) of `area`, which gets `flags`, to its neighbours. The area that holds it then, if it could. */
function mergeExisting(space: Space, area: Area, start: number, end: number, flags: number): Area | undefined {
  const atLeft = start === area.start;
  const atRight = end === area.end;
  if (area.has(UNMERGED) || (!atLeft && !atRight)) return undefined;
  const wanted: Candidate = {
    start,
    end,
    flags,
    object: area.object,
    offset: area.offsetOf(start),
    anonVma: area.anonVma,
    middle: area,
  };
  const left = atLeft ? space.areas.previous(area) : undefined;
  const right = atRight ? space.areas.next(area) : undefined;
  const isLeft = joinsLeft(wanted, left);
  const isRight = joinsRight(wanted, right, isLeft ? left : undefined);
  if (!isLeft && !isRight) return undefined;
  const isWhole = atLeft && atRight;
  const swallowed = isWhole ? [area] : [];
  if (isLeft && isRight) {
    takeLinks(left!, right!.anonVma ? right! : area);
    const { start: first, offset } = left!;
    resize(space, { area: left!, start: first, end: right!.end, offset, vanish: [...swallowed, right!] });
    return left;
  }
  if (isLeft) {
    takeLinks(left!, area);
    const rest = isWhole ? undefined : { area, start: end, offset: area.offsetOf(end), grows: false };
    const { start: first, offset } = left!;
    resize(space, { area: left!, start: first, end, offset, ...(rest && { other: rest }), vanish: swallowed });
    return left;
  }
  takeLinks(right!, area);
  if (isWhole) resize(space, { area: right!, start, end: right!.end, offset: wanted.offset, vanish: swallowed });
  else {
    const grown = { area: right!, start, offset: right!.offset - (right!.start - start), grows: true };
    resize(space, { area, start: area.start, end: start, offset: area.offset, other: grown, vanish: [] });
  }
  return right;
}

/**
 * Gives pages [start, end) of `area` other flags: joined to a neighbour, or cut out. The area that holds them then.
 *
 * @throws DmaError ERR_DMA_USER_RANGE (EINVAL) as {@link splitArea}; a first cut stays, as on Linux
 */
export function changeFlags(space: Space, area: Area, start: number, end: number, flags: number): Area {
  const merged = mergeExisting(space, area, start, end, flags);
  if (merged) return merged;
  if (area.start < start) splitArea(space, area, start, true);
  if (area.end > end) splitArea(space, area, end, false);
  area.flags = flags;
  return area;
}

/** Tries to enlarge a neighbour by what is new at [start, end). That neighbour, if it could. */
export function mergeNew(space: Space, wanted: Candidate): Area | undefined {
  if ((wanted.flags & UNMERGED) !== 0) return undefined;
  const left = space.areas.before(wanted.start);
  const right = space.areas.from(wanted.end);
  const isLeft = joinsLeft(wanted, left);
  const isRight = joinsRight(wanted, right, isLeft ? left : undefined);
  if (!isLeft && !isRight) return undefined;
  const target = isLeft ? left! : right!;
  const swallowed = isLeft && isRight ? [right!] : [];
  if (swallowed.length > 0) takeLinks(target, right!);
  if (wanted.copiedFrom) takeLinks(target, wanted.copiedFrom);
  const start = isLeft ? target.start : wanted.start;
  const end = swallowed.length > 0 || !isLeft ? right!.end : wanted.end;
  resize(space, { area: target, start, end, offset: isLeft ? target.offset : wanted.offset, vanish: swallowed });
  return target;
}

/** The area at a new place that pages of `from`, from page `first` on, will move to. */
export function copyArea(space: Space, from: Area, first: number, start: number, pages: number): Area {
  const isUntouched = from.isAnonymous && !from.anonVma;
  const offset = isUntouched ? start : from.offsetOf(first);
  const { flags, object, anonVma } = from;
  const merged = mergeNew(space, { start, end: start + pages, flags, object, offset, anonVma, copiedFrom: from });
  if (merged) return merged;
  const made = new Area(space, { ...shapeOf(from), start, end: start + pages, offset });
  cloneAnonLinks(made, from);
  enterArea(space, made);
  return made;
}
