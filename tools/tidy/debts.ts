/** What tidy complains of and why it stands. A debt that is paid must go: tidy says so. */

/** `key` is what a complaint names; see `checks.ts`. */
export interface Debt {
  readonly check: string;
  readonly key: string;
  readonly reason: string;
}

export const DEBTS: readonly Debt[] = [];
