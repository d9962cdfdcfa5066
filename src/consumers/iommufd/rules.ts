/** Where iommufd is better than Linux, by name: an option for each, off unless it is set. */

/** Where this is better than Linux: each by its name. Without them all is as Linux does it. */
export interface IoasRules {
  /** An unmap that would cut an area removes nothing. Linux removes the areas below it first. */
  readonly unmapIsAtomic?: boolean;
  /**
   * An unmap that would cut an area cuts it: large leaves on the way are split, and exactly what was asked goes. Linux refuses it
   * (ENOENT). Beside it {@link unmapIsAtomic} has nothing to refuse.
   */
  readonly unmapSplits?: boolean;
  /** Reading dirty bits over a hole is refused. Linux says 0, and reports nothing from the hole on. */
  readonly dirtyHolesAreRefused?: boolean;
  /** Page sizes for dirty bits must be powers of two. Linux takes the lowest set bit. */
  readonly dirtyPageSizeIsChecked?: boolean;
  /** Reserved words that Linux does not look at must be zero. */
  readonly reservedWordsAreChecked?: boolean;
  /** A file that cannot be pinned is refused when it is mapped. Linux says so when the first table comes. */
  readonly filesAreChecked?: boolean;
}

/** All of {@link IoasRules} that only refuse or tell more; not `unmapSplits`, which does what Linux refuses. */
export const ALL_RULES: Required<Omit<IoasRules, "unmapSplits">> = {
  unmapIsAtomic: true,
  dirtyHolesAreRefused: true,
  dirtyPageSizeIsChecked: true,
  reservedWordsAreChecked: true,
  filesAreChecked: true,
};
