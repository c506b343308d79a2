//! Limit on the processor time of processes, by a control group, where the machine allows it.

use std::{fs, io, path::PathBuf};

/// Limit that ends when the value is dropped.
#[derive(Debug)]
pub struct CpuLimit {
    group: PathBuf,
    root: PathBuf,
}

impl CpuLimit {
    /// Limits processes together to half a core: 50 ms in each period of 100 ms.
    ///
    /// # Errors
    ///
    /// Fails if this process may not create control groups with the controller for processors.
    pub fn half_a_core(processes: &[u32]) -> io::Result<Self> {
        let name = format!("conversation-memory-{}", crate::new_id());
        let (root, limit, value) = if fs::exists("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")? {
            ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000")
        } else {
            ("/sys/fs/cgroup", "cpu.max", "50000 100000")
        };
        let root = PathBuf::from(root);
        let group = root.join(name);
        fs::create_dir(&group)?;
        // Dropped, and so removed, if the limit cannot be set.
        let created = Self { group, root };
        fs::write(created.group.join(limit), value)?;
        for process in processes {
            fs::write(created.group.join("cgroup.procs"), process.to_string())?;
        }
        Ok(created)
    }

    /// Number of periods in which the processes were stopped because they had used their time.
    pub fn throttled_periods(&self) -> u64 {
        let stat = fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        line.map_or(0, |number| number.parse().unwrap())
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            // It may have ended.
            let _ = fs::write(self.root.join("cgroup.procs"), process);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
