package weir.compat;

import java.io.PrintWriter;
import org.apache.kafka.common.utils.AppInfoParser;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

/** Runs all tests of this package, eight at a time, and ends with a line of counts. */
public final class Main {
    public static void main(String[] words) {
        LauncherDiscoveryRequestBuilder builder = LauncherDiscoveryRequestBuilder.request()
            .configurationParameter("junit.jupiter.execution.parallel.enabled", "true")
            .configurationParameter("junit.jupiter.execution.parallel.mode.default", "concurrent")
            .configurationParameter("junit.jupiter.execution.parallel.mode.classes.default", "concurrent")
            .configurationParameter("junit.jupiter.execution.parallel.config.strategy", "fixed")
            .configurationParameter("junit.jupiter.execution.parallel.config.fixed.parallelism", "8");
        if (words.length == 0) {
            builder.selectors(DiscoverySelectors.selectPackage("weir.compat"));
        }
        for (String word : words) {
            builder.selectors(word.contains("#") ? DiscoverySelectors.selectMethod("weir.compat." + word)
                : DiscoverySelectors.selectClass("weir.compat." + word));
        }
        LauncherDiscoveryRequest request = builder.build();
        SummaryGeneratingListener summary = new SummaryGeneratingListener();
        TestExecutionListener lines = new TestExecutionListener() {
            @Override
            public void executionFinished(TestIdentifier test, TestExecutionResult result) {
                if (test.isTest() || result.getStatus() != TestExecutionResult.Status.SUCCESSFUL) {
                    System.out.println(result.getStatus() + " " + test.getLegacyReportingName());
                }
            }
        };
        System.out.println("kafka-clients " + AppInfoParser.getVersion());
        LauncherFactory.create().execute(request, summary, lines);
        var counts = summary.getSummary();
        counts.printFailuresTo(new PrintWriter(System.out, true), 12);
        long failed = Math.max(counts.getTotalFailureCount(), counts.getTestsFailedCount());
        System.out.printf("%d passed, %d failed, %d skipped%n", counts.getTestsSucceededCount(), failed,
            counts.getTestsSkippedCount() + counts.getContainersSkippedCount());
        System.exit(failed > 0 || counts.getTestsSucceededCount() == 0 ? 1 : 0);
    }
}
