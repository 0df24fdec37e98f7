"""Faults in the networks and in the surgery on them."""

from fault import Fault

MODELS = [
    Fault(
        area="models",
        kind="swapped arguments",
        file="models/layers.py",
        old='name=f"{name}_2")\n    return conv_bn(x, 4 * channels, 1, relu=False, gamma=gamma, name=f"{name}_3")',
        new='gamma=gamma, name=f"{name}_2")\n    return conv_bn(x, 4 * channels, 1, relu=False, name=f"{name}_3")',
        harm="Zero gamma zeroes the second batch norm of a bottleneck, before a ReLU: the path never trains.",
        seen="The zero gammas of resnet14_d are in stage1_block1_2_bn … instead of stage1_block1_3_bn …",
        tests=("models/test_resnet.py",),
    ),
    Fault(
        area="models",
        kind="off by one",
        file="models/layers.py",
        old='layers.AveragePooling2D(strides, strides, "same"',
        new='layers.AveragePooling2D(strides + 1, strides, "same"',
        harm="ResNet-D's shortcuts pool 3x3 windows; weights of other libraries give other outputs.",
        seen="Logits of a small resnet10_d with a fixed seed are -0.0924, 0.0876 instead of -0.0806, 0.0893.",
        tests=("models/test_reference.py",),
    ),
    Fault(
        area="models",
        kind="wrong default",
        file="models/layers.py",
        old="BN_MOMENTUM = 0.9\n",
        new="BN_MOMENTUM = 0.99\n",
        harm="Keras' batch norm momentum instead of the paper's: evaluation lags behind in short trainings.",
        seen="The config of every batch norm contains the momentum 0.99 instead of 0.9.",
    ),
    Fault(
        area="models",
        kind="dropped term",
        file="models/layers.py",
        old='return layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x), "valid"',
        new='return x, "same"',
        harm='Strided convolutions pad as Keras\' "same": imported weights shift by a pixel per stage.',
        seen=(
            "Logits of a small resnet10_a with a fixed seed are 0.070, -0.025 instead of 0.009, -0.051; as many "
            "parameters."
        ),
    ),
    Fault(
        area="models",
        kind="wrong sign",
        file="models/inception.py",
        old="if not architecture.counts_padding:",
        new="if architecture.counts_padding:",
        harm="inception_v3 and inception_v3_tf exchange their average pools at the border.",
        seen='The first average pool of inception_v3 has the padding "same" instead of "valid".',
    ),
    Fault(
        area="models",
        kind="wrong axis",
        file="models/inception.py",
        old="row, column = (1, 7), (7, 1)",
        new="row, column = (7, 1), (1, 7)",
        harm="Inception-V3's factorised convolutions run along the other axis first: imported weights don't fit.",
        seen="stage3_block2_7x7_2 has a 7x1 instead of a 1x7 kernel; as many parameters.",
    ),
    Fault(
        area="models",
        kind="ignored flag",
        file="models/networks.py",
        old="classifier(x, num_classes, classifier_activation,",
        new="classifier(x, num_classes, None,",
        harm='create_model(…, classifier_activation="softmax") returns logits.',
        seen="The outputs sum to 0.526 instead of 1.",
    ),
    Fault(
        area="models",
        kind="wrong sign",
        file="surgery.py",
        old='(bias[0] if bias else 0.0) - arrays["moving_mean"]',
        new='(bias[0] if bias else 0.0) + arrays["moving_mean"]',
        harm="Networks with folded batch norm predict other classes.",
        seen="The folded network's outputs differ by 2.4 instead of 0.0000 once the moving means are not 0.",
    ),
]
