import type { HarnessCapabilities } from '../../activities/harness/port.ts';
import type { HarnessReport } from '../../activities/harness/report.ts';
import type { Harness, HarnessControl, HarnessControls } from '../../contracts/harness-catalogue.ts';
import { HARNESS_INSTALL_NAMES, HARNESS_PACKAGES } from '../../contracts/harness-versions.ts';
import { AGENT_HARNESSES, AVAILABLE_HARNESSES, type AgentHarness, type Placement } from '../../contracts/harnesses.ts';

const enforced = (reason: string): HarnessControl => ({ state: 'enforced', reason });
const observed = (reason: string): HarnessControl => ({ state: 'observed', reason });
const unavailable = (reason: string): HarnessControl => ({ state: 'unavailable', reason });

const NATIVE_CONTROLS: HarnessControls = {
  tools: enforced('The loop is ours: each call is a row of the ledger before it starts.'),
  model: enforced('Each turn names its model.'),
  cost: enforced('Every model call goes through the gateway.'),
  credentials: enforced('The loop has a key of the session, never one of a provider.'),
  isolation: enforced('A session has its own sandbox; the loop runs no commands.'),
};

/** What is kept of a harness in a placement; by what its driver says it can, nothing better. */
function controlsOf(can: HarnessCapabilities, placement: Placement): HarnessControls {
  const isInline = placement === 'inline';
  return {
    tools:
      isInline && can.remoteTools
        ? enforced('Its own tools are off: it has ours only, which are decided and run by the ledger.')
        : observed(
            'It acts by itself inside the sandbox and asks before it does; that it asks is its maker’s promise.',
          ),
    model: modelOf(can, isInline),
    cost: enforced('Its only model endpoint is the gateway, under a key of the session.'),
    credentials: can.perSessionKey
      ? enforced('It has a key of the session, never one of a provider.')
      : observed('Sessions of one process share a key.'),
    isolation: isolationOf(can, isInline),
  };
}

function modelOf(can: HarnessCapabilities, isInline: boolean): HarnessControl {
  if (!can.perMessageModel) return unavailable('The model is chosen when the session starts.');
  if (isInline) return enforced('Each turn names its model.');
  return observed('Each turn names its model; what runs in the sandbox may ask the gateway for others of the team.');
}

function isolationOf(can: HarnessCapabilities, isInline: boolean): HarnessControl {
  if (!isInline) return enforced('It runs in the session’s sandbox.');
  if (!can.multiSession) return enforced('A session has a process of its own, without hands on this machine.');
  return observed('Sessions share a process without hands; the harness keeps them apart, not the system.');
}

function capabilitiesOf(can: HarnessCapabilities): NonNullable<Harness['capabilities']> {
  return {
    multi_session: can.multiSession,
    per_session_key: can.perSessionKey,
    per_message_model: can.perMessageModel,
    system_prompt: can.systemPrompt,
    mcp: [...can.mcp],
    idempotent_message: can.idempotentMessage,
    hot_reattach: can.hotReattach,
    durable_permission: can.durablePermission,
    remote_tools: can.remoteTools,
    skills: can.skills,
    usage_basis: can.usageBasis,
    notes: can.notes,
  };
}

/** All harnesses there are; `report` is undefined when no worker told what it has. */
export function renderHarnesses(report: HarnessReport | undefined): Harness[] {
  return AGENT_HARNESSES.map((name) => renderHarness(name, report));
}

function renderHarness(name: AgentHarness, report: HarnessReport | undefined): Harness {
  const can = report?.drivers.find((driver) => driver.name === name)?.capabilities;
  const available = AVAILABLE_HARNESSES[name];
  const controls = (placement: Placement): HarnessControls | undefined =>
    name === 'native' ? NATIVE_CONTROLS : can === undefined ? undefined : controlsOf(can, placement);
  return {
    type: 'harness',
    name,
    programs: HARNESS_INSTALL_NAMES.filter((each) => HARNESS_PACKAGES[each].harness === name).map((each) => ({
      name: each,
      package: HARNESS_PACKAGES[each].package,
      version: HARNESS_PACKAGES[each].version,
      licence: HARNESS_PACKAGES[each].licence,
      installed: report === undefined ? null : report.installed.includes(each),
    })),
    available: available !== undefined,
    placements: (available?.placements ?? []).flatMap((placement) => {
      const found = controls(placement);
      return found === undefined ? [] : [{ placement, controls: found }];
    }),
    capabilities: can === undefined ? null : capabilitiesOf(can),
  };
}
