import type { AgentDefinition, BuiltinToolName } from '../../contracts/definitions.ts';
import { READ_ONLY_TOOLS } from '../../contracts/definitions.ts';
import { isEnabled, toolsetOf } from '../../contracts/agent-tools.ts';
import type { Judgement } from '../model/policy.ts';
import { judge, verdictOf } from '../model/policy.ts';

/** Tools that harnesses have of their own, in small letters and without separators, by the tool of ours that does the same. */
const SAME_AS: Record<BuiltinToolName, readonly string[]> = {
  bash: ['bash', 'shell', 'execute', 'execcommand', 'runshellcommand', 'runterminalcmd', 'terminal', 'localshell'],
  read: ['read', 'readfile', 'view', 'readmanyfiles', 'notebookread', 'ls', 'list', 'listdirectory'],
  write: ['write', 'writefile', 'create', 'createfile'],
  edit: ['edit', 'editfile', 'multiedit', 'replace', 'strreplace', 'applypatch', 'patch', 'filechange', 'notebookedit'],
  glob: ['glob', 'findfiles'],
  grep: ['grep', 'search', 'searchfilecontent', 'codesearch'],
  web_fetch: ['webfetch', 'fetch', 'fetchurl'],
};
/** What leaves the machine or the file system by another way is never taken for one of the above: it is not in the list. */
const BUILTIN_OF = new Map(
  Object.entries(SAME_AS).flatMap(([name, own]) => own.map((other) => [other, name as BuiltinToolName] as const)),
);

/**
 * What the agent's permissions say about a tool of the harness's own: those of our tool that does the same. One that is like
 * none of ours follows the default of the agent's toolset and counts as one that may change the world.
 */
export function judgeOwnTool(agent: AgentDefinition, tool: string): Judgement {
  const toolset = toolsetOf(agent);
  const same = BUILTIN_OF.get(tool.toLowerCase().replaceAll(/[^a-z]/g, ''));
  const like = same === undefined ? undefined : judge(agent, same);
  if (toolset === undefined || like?.verdict === 'deny') {
    const reason = `the agent may not use ${tool}`;
    return { kind: 'invalid', verdict: 'deny', reason, policy: null, idempotent: true };
  }
  if (like !== undefined && same !== undefined && isEnabled(toolset, same)) {
    return { ...like, kind: 'harness', idempotent: READ_ONLY_TOOLS.includes(same) };
  }
  const policy = toolset.default_config.permission_policy.type;
  return { kind: 'harness', policy, idempotent: false, ...verdictOf(policy, false) };
}
