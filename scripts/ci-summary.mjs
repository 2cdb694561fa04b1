// Adds up the JSON reports of all test suites given as arguments; the last line is `N passed, N failed[, N skipped]`.
import { existsSync, readFileSync } from 'node:fs';

const totals = { passed: 0, failed: 0, skipped: 0 };
for (const file of process.argv.slice(2)) {
  if (!existsSync(file)) {
    console.log(`no report ${file}: the suite did not run to its end`);
    totals.failed += 1;
    continue;
  }
  const report = JSON.parse(readFileSync(file, 'utf8'));
  totals.passed += report.numPassedTests;
  totals.failed += report.numFailedTests;
  totals.skipped += report.numPendingTests + report.numTodoTests;
  for (const { assertionResults } of report.testResults) {
    for (const { status, fullName } of assertionResults) {
      if (status === 'pending' || status === 'skipped' || status === 'todo') console.log(`skipped: ${fullName}`);
    }
  }
  // A file that could not even be loaded holds no failed test, and errors outside of tests belong to none.
  const broken = report.testResults.filter(
    (result) => result.status === 'failed' && result.assertionResults.length === 0,
  );
  for (const result of broken) console.log(`not loaded: ${result.name}\n${result.message}`);
  totals.failed += broken.length;
  if (!report.success && report.numFailedTests === 0 && broken.length === 0) totals.failed += 1;
}
const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : '';
console.log(`${totals.passed} passed, ${totals.failed} failed${skipped}`);
process.exitCode = totals.failed > 0 || totals.passed === 0 ? 1 : 0;
