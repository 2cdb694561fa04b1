import type { LonghaulClient } from '../../client/index.ts';

/** What the demo asks of the agent: once as a script for the offline model, once in words for a real one. */

const PROGRAM = `#!/usr/bin/env bash
# Prints a number in Roman numerals.
n=$1 out=
for pair in 1000:M 900:CM 500:D 400:CD 100:C 90:XC 50:L 40:XL 10:X 5:V 4:IV 1:I; do
  while [ "$n" -ge "\${pair%%:*}" ]; do
    out+=\${pair##*:} n=$((n - \${pair%%:*}))
  done
done
echo "$out"
`;

const TEST = `#!/usr/bin/env bash
# Each case is number:expected.
cases="4:IV 9:IX 1990:MCMXC 2026:MMXXVI" failed=0 total=0
for case in $cases; do
  got=$(bash roman.sh "\${case%%:*}") total=$((total + 1))
  [ "$got" = "\${case##*:}" ] && continue
  echo "case \${case%%:*}: expected \${case##*:}, got $got"
  failed=$((failed + 1))
done
[ "$failed" -gt 0 ] && echo "$failed of $total tests failed" && exit 1
echo "all $total tests passed"
`;

/** How long the command runs that the worker dies under. */
export const SLOW_COMMAND_MS = 7_000;
/** The file it writes to when it starts and when it ends. */
export const JOURNAL = 'journal.log';
/** What the program's test prints when the program is right. */
export const ALL_PASSED = /all \d+ tests passed/;

const SLOW_TEST = [
  `echo "start $(date +%s%3N)" >> ${JOURNAL}`,
  `sleep ${SLOW_COMMAND_MS / 1_000}`,
  'bash test.sh; code=$?',
  `echo "end $(date +%s%3N)" >> ${JOURNAL}`,
  'exit $code',
].join('\n');

const SCRIPT = [
  {
    text: 'I write the program and its test first.',
    tools: [
      { name: 'write', input: { file_path: 'roman.sh', content: PROGRAM } },
      { name: 'write', input: { file_path: 'test.sh', content: TEST } },
    ],
  },
  { text: 'Now the test; it takes a few seconds.', tools: [{ name: 'bash', input: { command: SLOW_TEST } }] },
  {
    text: 'The case 9 is wrong. First I look whether that command ran once only.',
    tools: [{ name: 'bash', input: { command: `cat ${JOURNAL}` } }],
  },
  {
    text: 'The table lacks 9. I add it.',
    tools: [{ name: 'edit', input: { file_path: 'roman.sh', old_string: '10:X 5:V', new_string: '10:X 9:IX 5:V' } }],
  },
  { text: 'The test again.', tools: [{ name: 'bash', input: { command: 'bash test.sh' } }] },
  { text: 'roman.sh works: all tests pass.' },
];

const WORDS = `Please do exactly these steps, one tool call a step, each with the tool named:
1. Tool write: the file roman.sh with this content, unchanged (it has a bug that you will fix later):
\`\`\`bash
${PROGRAM}\`\`\`
2. Tool write: the file test.sh with this content, unchanged:
\`\`\`bash
${TEST}\`\`\`
3. Tool bash, exactly this command, once:
\`\`\`bash
${SLOW_TEST}
\`\`\`
4. Tool bash: cat ${JOURNAL}
5. Tool edit: fix the bug in roman.sh (the table of values lacks one).
6. Tool bash: bash test.sh
Then say in one sentence whether the test passes.`;

/** A message that the offline model plays. */
export const scripted = (intro: string, steps: object[]): string =>
  `${intro}\n\n\`\`\`script\n${JSON.stringify(steps, null, 1)}\n\`\`\``;

/** Model calls that the script takes. */
export const SCRIPTED_STEPS = SCRIPT.length;

/** The message that starts the session's turn. */
export function taskMessage(isScripted: boolean): string {
  return isScripted ? scripted('Write roman.sh, a converter to Roman numerals, and test it.', SCRIPT) : WORDS;
}

/** The message of the scheduled session. */
export function nightlyMessage(isScripted: boolean): string {
  const command = 'echo "nightly check: $((6 * 7))"';
  if (!isScripted) return `Run this command with bash, once, and repeat its output in one sentence: ${command}`;
  return scripted('Nightly check.', [
    { tools: [{ name: 'bash', input: { command } }] },
    { text: '{{lastToolResult}}' },
  ]);
}

/** The agent: everything is allowed but edits, which ask. */
export function agentBody(model: string): Parameters<LonghaulClient['agents']['create']>[0] {
  return {
    name: 'Demo coder',
    model,
    system: 'You write small shell programs and test them. Be brief.',
    tools: [
      {
        type: 'agent_toolset_20260401',
        configs: [{ name: 'edit', permission_policy: { type: 'always_ask' } }],
      },
    ],
  };
}

/** A cron expression that fires once in the coming hours: at the first full minute at least `leadMs` from now, in UTC. */
export function nextMinute(nowMs: number, leadMs: number): { expression: string; atMs: number } {
  const minuteMs = 60_000;
  const atMs = Math.ceil((nowMs + leadMs) / minuteMs) * minuteMs;
  const at = new Date(atMs);
  return { expression: `${at.getUTCMinutes()} ${at.getUTCHours()} * * *`, atMs };
}
