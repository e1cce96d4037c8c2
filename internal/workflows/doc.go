// Package workflows checks what runs on GitHub: the workflows in .github, and that Dependabot knows
// every manifest of the checkout. It has only tests.
package workflows
