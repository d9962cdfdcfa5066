/**
 * Tidy: the code is checked about itself, so that nobody has to say the same remark twice.
 *
 *     npx tsx tools/tidy.ts            exit 1 on a complaint that no debt names, or a debt that nobody owes
 *     npx tsx tools/tidy.ts --all      debts are complaints too
 */
import { CHECKS } from "./tidy/checks.ts";
import { Code } from "./tidy/code.ts";
import { DEBTS } from "./tidy/debts.ts";

const all = process.argv.includes("--all");
const code = new Code();
const owed = new Set<string>();
let complaints = 0;
for (const check of CHECKS) {
  const found = check.run(code);
  for (const { key, message } of found) {
    const debt = DEBTS.find(
      (each) => each.check === check.name && (key === each.key || key.startsWith(`${each.key} `)),
    );
    if (debt) owed.add(`${debt.check} ${debt.key}`);
    if (debt && !all) continue;
    complaints++;
    process.stdout.write(`${check.name}: ${message}\n`);
  }
}
for (const { check, key } of DEBTS)
  if (!owed.has(`${check} ${key}`)) {
    complaints++;
    process.stdout.write(`paid: the debt "${check} ${key}" is owed no more: take it out of tools/tidy/debts.ts\n`);
  }
process.stdout.write(
  complaints === 0 ? `tidy: ${code.library.length} files, nothing to say\n` : `tidy: ${complaints} complaints\n`,
);
process.exit(complaints === 0 ? 0 : 1);
