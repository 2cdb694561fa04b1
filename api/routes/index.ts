import type { AnyEndpoint } from '../endpoint.ts';
import { archiveAgent } from './archive-agent.ts';
import { archiveBudget } from './archive-budget.ts';
import { archiveDeployment } from './archive-deployment.ts';
import { archiveEnvironment } from './archive-environment.ts';
import { archiveSession } from './archive-session.ts';
import { createAgent } from './create-agent.ts';
import { closeSessionPort } from './close-session-port.ts';
import { createBudget } from './create-budget.ts';
import { createDeployment } from './create-deployment.ts';
import { createEnvironment } from './create-environment.ts';
import { createKey } from './create-key.ts';
import { createSessionPort } from './create-session-port.ts';
import { createSession } from './create-session.ts';
import { decideApproval } from './decide-approval.ts';
import { deleteEnvironment } from './delete-environment.ts';
import { deletePrice } from './delete-price.ts';
import { deleteSession } from './delete-session.ts';
import { getAgentCache } from './get-agent-cache.ts';
import { getAgentEstimate } from './get-agent-estimate.ts';
import { getAgent } from './get-agent.ts';
import { getApproval } from './get-approval.ts';
import { getBudget } from './get-budget.ts';
import { getDeploymentRun } from './get-deployment-run.ts';
import { getDeployment } from './get-deployment.ts';
import { getEffectivePrice } from './get-effective-price.ts';
import { getEnvironment } from './get-environment.ts';
import { getHealth } from './get-health.ts';
import { getKey } from './get-key.ts';
import { getMetrics } from './get-metrics.ts';
import { getPrice } from './get-price.ts';
import { getReadiness } from './get-readiness.ts';
import { getSessionTrace } from './get-session-trace.ts';
import { addSessionResource } from './add-session-resource.ts';
import { deleteSessionResource } from './delete-session-resource.ts';
import { getSessionResource } from './get-session-resource.ts';
import { getSessionThread } from './get-session-thread.ts';
import { getSessionUsage } from './get-session-usage.ts';
import { getSession } from './get-session.ts';
import { getUsagePercentiles } from './get-usage-percentiles.ts';
import { getUsage } from './get-usage.ts';
import { importPrices } from './import-prices.ts';
import { listAgentVersions } from './list-agent-versions.ts';
import { listAgents } from './list-agents.ts';
import { listApprovals } from './list-approvals.ts';
import { listBudgetEvents } from './list-budget-events.ts';
import { listBudgets } from './list-budgets.ts';
import { listDeploymentRuns } from './list-deployment-runs.ts';
import { listDeployments } from './list-deployments.ts';
import { listEnvironments } from './list-environments.ts';
import { listEvents } from './list-events.ts';
import { listHarnesses } from './list-harnesses.ts';
import { listKeys } from './list-keys.ts';
import { listPrices } from './list-prices.ts';
import { listPorts } from './list-session-ports.ts';
import { listSessionResources } from './list-session-resources.ts';
import { listSessionThreads } from './list-session-threads.ts';
import { listSessions } from './list-sessions.ts';
import { pauseDeployment } from './pause-deployment.ts';
import { revokeKey } from './revoke-key.ts';
import { runDeployment } from './run-deployment.ts';
import { sendEvents } from './send-events.ts';
import { setPrice } from './set-price.ts';
import { streamEvents } from './stream-events.ts';
import { unpauseDeployment } from './unpause-deployment.ts';
import { updateAgent } from './update-agent.ts';
import { updateBudget } from './update-budget.ts';
import { updateDeployment } from './update-deployment.ts';
import { updateEnvironment } from './update-environment.ts';
import { updateKey } from './update-key.ts';
import { updateSessionResource } from './update-session-resource.ts';
import { updateSession } from './update-session.ts';
import { createModelRoute } from './create-model-route.ts';
import { listModelRoutes } from './list-model-routes.ts';
import { getModelRoute } from './get-model-route.ts';
import { updateModelRoute } from './update-model-route.ts';
import { deleteModelRoute } from './delete-model-route.ts';
import { getModelPolicy } from './get-model-policy.ts';
import { updateModelPolicy } from './update-model-policy.ts';
import { createFileLink } from './create-file-link.ts';
import { deleteFileLinks } from './delete-file-links.ts';
import { deleteFile } from './delete-file.ts';
import { downloadFile } from './download-file.ts';
import { getFile } from './get-file.ts';
import { listFiles } from './list-files.ts';
import { openFileLink } from './open-file-link.ts';
import { uploadFile } from './upload-file.ts';
import { createVault } from './create-vault.ts';
import { listVaults } from './list-vaults.ts';
import { createSkill } from './create-skill.ts';
import { listSkills } from './list-skills.ts';
import { getSkill } from './get-skill.ts';
import { deleteSkill } from './delete-skill.ts';
import { createSkillVersion } from './create-skill-version.ts';
import { listSkillVersions } from './list-skill-versions.ts';
import { getSkillVersion } from './get-skill-version.ts';
import { deleteSkillVersion } from './delete-skill-version.ts';
import { downloadSkillVersion } from './download-skill-version.ts';
import { harnessPreToolUse } from './harness-pre-tool-use.ts';
import { mcp } from './mcp.ts';
import { mcpServer } from './mcp-server.ts';
import { getVault } from './get-vault.ts';
import { updateVault } from './update-vault.ts';
import { archiveVault } from './archive-vault.ts';
import { deleteVault } from './delete-vault.ts';
import { createCredential } from './create-credential.ts';
import { listCredentials } from './list-credentials.ts';
import { getCredential } from './get-credential.ts';
import { updateCredential } from './update-credential.ts';
import { archiveCredential } from './archive-credential.ts';
import { deleteCredential } from './delete-credential.ts';
import { validateCredential } from './validate-credential.ts';
import { createVaultBinding } from './create-vault-binding.ts';
import { listVaultBindings } from './list-vault-bindings.ts';
import { deleteVaultBinding } from './delete-vault-binding.ts';
import { getEgressPolicy } from './get-egress-policy.ts';
import { listSecurityEvents } from './list-security-events.ts';
import { listSandboxEgress } from './list-sandbox-egress.ts';
import { listSessionEgress } from './list-session-egress.ts';
import { updateEgressPolicy } from './update-egress-policy.ts';

/** Every route of the API, in the order of the documentation. */
export const ENDPOINTS: readonly AnyEndpoint[] = [
  createAgent,
  listAgents,
  getAgent,
  updateAgent,
  archiveAgent,
  listAgentVersions,
  getAgentCache,
  createEnvironment,
  listEnvironments,
  getEnvironment,
  updateEnvironment,
  archiveEnvironment,
  deleteEnvironment,
  createSession,
  listSessions,
  getSession,
  updateSession,
  archiveSession,
  deleteSession,
  getSessionUsage,
  getSessionTrace,
  createSessionPort,
  listPorts,
  closeSessionPort,
  listSessionResources,
  getSessionResource,
  updateSessionResource,
  addSessionResource,
  deleteSessionResource,
  listSessionThreads,
  getSessionThread,
  sendEvents,
  listEvents,
  streamEvents,
  listApprovals,
  getApproval,
  decideApproval,
  listSandboxEgress,
  listSessionEgress,
  listSecurityEvents,
  getEgressPolicy,
  updateEgressPolicy,
  uploadFile,
  listFiles,
  listHarnesses,
  getFile,
  downloadFile,
  deleteFile,
  createFileLink,
  deleteFileLinks,
  openFileLink,
  createDeployment,
  listDeployments,
  getDeployment,
  updateDeployment,
  pauseDeployment,
  unpauseDeployment,
  runDeployment,
  archiveDeployment,
  listDeploymentRuns,
  getDeploymentRun,
  createVault,
  listVaults,
  getVault,
  updateVault,
  archiveVault,
  deleteVault,
  createCredential,
  listCredentials,
  getCredential,
  updateCredential,
  archiveCredential,
  deleteCredential,
  validateCredential,
  createVaultBinding,
  listVaultBindings,
  deleteVaultBinding,
  createKey,
  listKeys,
  getKey,
  updateKey,
  revokeKey,
  getUsage,
  getUsagePercentiles,
  getAgentEstimate,
  setPrice,
  listPrices,
  importPrices,
  getEffectivePrice,
  getPrice,
  deletePrice,
  createBudget,
  listBudgets,
  getBudget,
  updateBudget,
  archiveBudget,
  listBudgetEvents,
  createModelRoute,
  listModelRoutes,
  getModelRoute,
  updateModelRoute,
  deleteModelRoute,
  getModelPolicy,
  updateModelPolicy,
  createSkill,
  listSkills,
  getSkill,
  deleteSkill,
  createSkillVersion,
  listSkillVersions,
  getSkillVersion,
  deleteSkillVersion,
  downloadSkillVersion,
  mcp,
  mcpServer,
  harnessPreToolUse,
  getHealth,
  getReadiness,
  getMetrics,
];
