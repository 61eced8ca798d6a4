# Cases for `lib.runTests`: the modules under the real module system.
{ lib }:
let
  stubs = import ./stubs.nix { inherit lib; };
  inherit (stubs) evaluate home manifest;

  fails = modules: !(builtins.tryEval (builtins.deepSeq (manifest modules) null)).success;
  problems = modules: (manifest modules).problems;
  everything = import ./everything.nix;

  alice = home [
    {
      lollypops.secrets.cmd-name-prefix = "users/alice/";
      lollypops.secrets.files.ntfy = { };
    }
  ];
  users = {
    inherit alice;
    bob = home [ ];
    carol = { };
  };
in
{
  testDefaults = {
    expr = manifest [ ];
    expected = {
      schema = 1;
      deployment = {
        local-evaluation = false;
        deploy-method = "auto";
        config-dir = "/var/src/lollypops";
        group = null;
        groups = [ ];
        sudo = {
          enable = false;
          command = "sudo";
          opts = [ ];
        };
        ssh = {
          command = "ssh";
          opts = [ ];
          host = "web1";
          user = null;
        };
      };
      secrets = {
        default-cmd = "pass";
        cmd-name-prefix = "";
        default-dir = "/var/src/lollypops-secrets";
        files = { };
      };
      tasks = [
        "deploy-flake"
        "deploy-secrets"
        "rebuild"
      ];
      extraTasks = { };
      problems = [ ];
    };
  };

  testEveryOption = {
    expr = manifest [ { lollypops = everything; } ];
    expected = everything // {
      schema = 1;
      problems = [ ];
    };
  };

  testSecretDefaults = {
    expr =
      (manifest [
        {
          lollypops.secrets.default-cmd = "vault read";
          lollypops.secrets.cmd-name-prefix = "my hosts/";
          lollypops.secrets.files."nextcloud/admin" = { };
        }
      ]).secrets.files;
    expected."nextcloud/admin" = {
      name = "nextcloud/admin";
      vault-name = "my hosts/nextcloud/admin";
      cmd = "vault read 'my hosts/nextcloud/admin'";
      path = "/var/src/lollypops-secrets/nextcloud/admin";
      mode = "0400";
      owner = "root";
      group-name = null;
    };
  };

  testPlainNameIsNotQuoted = {
    expr = (manifest [ { lollypops.secrets.files.db = { }; } ]).secrets.files.db.cmd;
    expected = "pass db";
  };

  testGroupDefaultMeansNone = {
    expr = (manifest [ { lollypops.deployment.group = "default"; } ]).deployment.group;
    expected = null;
  };

  testDefinitionsMerge = {
    expr =
      let
        task = {
          lollypops.deployment.ssh.opts = [ "-A" ];
          lollypops.extraTasks.x.cmds = [ "one" ];
        };
        more = {
          lollypops.extraTasks.x.cmds = [ { task = "rebuild"; } ];
          lollypops.extraTasks.x.vars.N = 1;
        };
        data = manifest [
          task
          more
        ];
      in
      {
        inherit (data.deployment.ssh) opts;
        inherit (data.extraTasks) x;
      };
    expected = {
      opts = [ "-A" ];
      x.cmds = [
        "one"
        { task = "rebuild"; }
      ];
      x.vars.N = 1;
    };
  };

  testImportedTwice = {
    expr = (manifest [ (import ../../nix/nixos.nix) ]).secrets.files;
    expected = { };
  };

  # The manifest never evaluates `pkgs`: the one of `evaluate` throws.
  testSshScripts = {
    expr =
      let
        evaluated = lib.evalModules {
          specialArgs.pkgs = stubs.pkgs;
          modules = [
            (import ../../nix/nixos.nix)
            stubs.base
            {
              lollypops.deployment.sudo.enable = true;
              lollypops.deployment.ssh.user = "ops";
              lollypops.deployment.ssh.opts = [ "-i/keys/$USER \${X}$(id)" ];
            }
          ];
        };
        inherit (evaluated.config.lollypops.deployment) ssh;
      in
      [
        ssh.login.text
        ssh.run.text
      ];
    expected = [
      "exec ssh -i/keys/\"$USER\"' '\"\${X}\"'$(id)' ops@web1 \"$@\"\n"
      "exec ssh -i/keys/\"$USER\"' '\"\${X}\"'$(id)' ops@web1 sudo \"$@\"\n"
    ];
  };

  testWithoutHomeManager = {
    expr = (manifest [ ]) ? home-manager;
    expected = false;
  };

  testUsersWithoutSecretsAreLeftOut = {
    expr = (manifest [ { home-manager.users = removeAttrs users [ "alice" ]; } ]) ? home-manager;
    expected = false;
  };

  testHomeManager = {
    expr = (manifest [ { home-manager = { inherit users; }; } ]).home-manager;
    expected.users.alice.secrets = {
      default-cmd = "pass";
      cmd-name-prefix = "users/alice/";
      default-dir = "/home/alice/lollypops-secrets";
      files.ntfy = {
        name = "ntfy";
        vault-name = "users/alice/ntfy";
        cmd = "pass users/alice/ntfy";
        path = "/home/alice/lollypops-secrets/ntfy";
        mode = "0400";
        owner = "alice";
        group-name = null;
      };
    };
  };

  testUnknownTask = {
    expr = problems [
      {
        lollypops.tasks = [
          "deploy-flake"
          "reboot"
          "notify"
          "reboot"
        ];
        lollypops.extraTasks.notify.cmds = [ "true" ];
      }
    ];
    expected = [
      (
        "lollypops.tasks names \"reboot\", which is neither a built-in task"
        + " (check-vars, deploy-flake, deploy-secrets, rebuild, without-secrets) nor one of lollypops.extraTasks."
      )
    ];
  };

  testDuplicatePaths = {
    expr = problems [
      {
        home-manager = { inherit users; };
        lollypops.secrets.files.a.path = "/run/secret";
        lollypops.secrets.files.b.path = "/run/secret";
        lollypops.secrets.files.c.path = "/home/alice/lollypops-secrets/ntfy";
      }
    ];
    expected = [
      (
        "lollypops.secrets.files.c and home-manager.users.alice.lollypops.secrets.files.ntfy"
        + " have the same path, /home/alice/lollypops-secrets/ntfy."
      )
      "lollypops.secrets.files.a and lollypops.secrets.files.b have the same path, /run/secret."
    ];
  };

  testEmptyHost = {
    expr = problems [ { networking.hostName = ""; } ];
    expected = [ "lollypops.deployment.ssh.host is empty; set it, or networking.hostName." ];
  };

  testProblemsAreAssertions = {
    expr =
      (evaluate [
        { options.assertions = lib.mkOption { type = lib.types.listOf lib.types.raw; }; }
        { networking.hostName = ""; }
      ]).config.assertions;
    expected = [
      {
        assertion = false;
        message = "lollypops.deployment.ssh.host is empty; set it, or networking.hostName.";
      }
    ];
  };

  testWrongTypes = {
    expr = lib.filterAttrs (_: options: !(fails [ { lollypops = options; } ])) {
      unknown.deployment.ssh.hots = "web1";
      method.deployment.deploy-method = "push";
      opts.deployment.ssh.opts = "-A";
      configDir.deployment.config-dir = "var/src";
      mode.secrets.files.a.mode = "u=r";
      relative.secrets.files.a.path = "secrets/a";
      literal.secrets.files.a.path = ./default.nix;
      inStore.secrets.files.a.path = "${builtins.storeDir}/x";
      function.extraTasks.a.cmds = [ (x: x) ];
      task.tasks = "rebuild";
      manifest.manifest = { };
    };
    expected = { };
  };

  testPathsAndPackagesInTasksAreText = {
    expr =
      (manifest [
        {
          lollypops.extraTasks.a.dir = ./.;
          lollypops.extraTasks.a.cmds = [ (stubs.pkgs.writeShellScriptBin "hello" "") ];
          lollypops.extraTasks.a.desc = null;
        }
      ]).extraTasks.a;
    expected = {
      dir = toString ./.;
      cmds = [ "/nix/store/00000000000000000000000000000000-hello" ];
    };
  };

  testWrongClass = {
    expr =
      (builtins.tryEval
        (lib.evalModules {
          class = "nixos";
          modules = [ (import ../../nix/home.nix) ];
        }).config.lollypops
      ).success;
    expected = false;
  };
}
